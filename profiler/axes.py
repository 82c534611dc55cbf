"""The glossary of axis names, and the jaxtyping aliases built from them. No synonyms elsewhere.

| axis | meaning |
|---|---|
| window | one window of a batch: a piece of one document, padded on the right to the longest of the batch |
| offset | index inside a window, from 0 (the BOS, where one is put there) |
| token | the ordinary and special positions of a batch, padding left out, in order of window and offset |
| component | a slice of component ids (profiler.model.components): heads or neurons of a layer, embeddings and biases |
| head, neuron | heads or neurons of one layer |
| model | the residual stream |
| d_head | inside of a head |
| key_offset | offset attended to |
| cell | a value of a breakdown axis: class, next class or position bucket |
| row | replicate group of documents |
| vocab | tokens of the tokenizer |
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

TokenIds = Int[Tensor, "window offset"]
Valid = Bool[Tensor, "window offset"]
Activations = Float[Tensor, "window offset component"]
Residual = Float[Tensor, "window offset model"]
HeadOutputs = Float[Tensor, "window offset head d_head"]
Scale = Float[Tensor, "window offset 1"]
PerPosition = Float[Tensor, "window offset"]
