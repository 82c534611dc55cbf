"""Static properties of tokens: the library, as SQL conditions. A token may have any number of them, or none.

The partition of profiler.text.token_classes gives every token one class, so that shares add up. Properties are the
finer and overlapping questions: a year is a number, an ordinal may be a word. Each is a condition over the columns
`text` (with its leading blank), `body` (blanks at both ends taken off), `token_id` and `class`, with regular
expressions in RE2 syntax, so that a user's own class is the same kind of thing as one of these. Special tokens have
none. `text ~ '...'` matches the whole text in DuckDB 1 and a part of it in DuckDB 2: a pattern with ^ and $ means the
same in both.

Cost: one pass over the vocabulary when a run is finished, milliseconds.
"""

from dataclasses import dataclass

KEYWORDS = (
    "False None True and as assert async await break class continue def del elif else except finally for from global if"
    " import in is lambda nonlocal not or pass raise return try while with yield self print function var let const"
    " static void int float char struct public private switch case new this null true false"
).split()
FUNCTION_WORDS = (
    "the of and a to in is that for it as was with on by be at are this or from an which not have but had were has"
    " their its they he she we you i his her if will would can could may should there these those been do does did than"
    " then when what who"
).split()
NUMBER_WORDS = "one two three four five six seven eight nine ten eleven twelve hundred thousand million billion".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth last".split()
CALENDAR = (
    "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august"
    " september october november december jan feb mar apr jun jul aug sep oct nov dec"
).split()
BYTES = r"(<0x[0-9A-F]{2}>)+"


@dataclass(frozen=True)
class Property:
    """One property: `condition` is SQL over text, body, token_id and class."""

    name: str
    description: str
    condition: str


def _one_of(words: list[str], column: str = "lower(body)") -> str:
    """Whether the column is one of these words."""
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


PROPERTIES: tuple[Property, ...] = (
    Property("year", "a number from 1000 to 2099 in four digits", r"regexp_full_match(body, '1[0-9]{3}|20[0-9]{2}')"),
    Property("number", "digits, with or without a decimal part", r"regexp_full_match(body, '[0-9]+([.,][0-9]+)?')"),
    Property("number_word", "a number in letters", _one_of(NUMBER_WORDS)),
    Property(
        "ordinal",
        "1st, 2nd, ... or an ordinal in letters",
        rf"regexp_full_match(body, '[0-9]+(st|nd|rd|th)') OR {_one_of(ORDINALS)}",
    ),
    Property(
        "calendar", "a day of the week or a month", f"{_one_of(CALENDAR)} AND regexp_full_match(text, ' ?[A-Z].*')"
    ),
    Property("code_keyword", "a keyword of Python or of the C family", _one_of(KEYWORDS, "body")),
    Property("function_word", "a frequent English function word", _one_of(FUNCTION_WORDS)),
    Property("single_letter", "one letter", r"regexp_full_match(body, '\p{L}')"),
    Property("all_caps", "two or more capitals and nothing else", r"regexp_full_match(body, '\p{Lu}{2,}')"),
    Property("capitalised", "a capital, then lower-case letters", r"regexp_full_match(body, '\p{Lu}\p{Ll}+')"),
    Property(
        "name_like",
        "a capital and two or more lower-case letters after a blank, no function word, keyword, day or month",
        rf"regexp_full_match(text, ' \p{{Lu}}\p{{Ll}}{{2,}}') AND NOT {_one_of([*FUNCTION_WORDS, *CALENDAR])} AND NOT"
        rf" {_one_of(KEYWORDS, 'body')}",
    ),
    Property("lower_word", "lower-case letters after a blank", r"regexp_full_match(text, ' \p{Ll}+')"),
    Property("word_piece", "lower-case letters without a blank before them", r"regexp_full_match(text, '\p{Ll}+')"),
    Property(
        "identifier", "letters, digits and underscores, at least one underscore", r"regexp_full_match(body, '\w*_\w*')"
    ),
    Property("leading_space", "one blank, then something else", r"regexp_full_match(text, '(?s) [^\s].*')"),
    Property("newline", "a text that holds a line break", r"contains(text, chr(10)) OR contains(text, chr(13))"),
    Property("indentation", "two or more blanks or tabs and nothing else", r"regexp_full_match(text, '[ \t]{2,}|\t')"),
    Property("white_space", "white space alone", r"regexp_full_match(text, '\s+')"),
    Property("sentence_end", "only . ! or ?", r"regexp_full_match(body, '[.!?]+')"),
    Property("comma", "a comma", r"body = ','"),
    Property("colon", "a colon or semicolon", r"body IN (':', ';')"),
    Property("bracket_open", "only opening brackets", r"regexp_full_match(body, '[(\[{]+')"),
    Property("bracket_close", "only closing brackets", r"regexp_full_match(body, '[)\]}]+')"),
    Property("quote", "only quotation marks", "regexp_full_match(body, '[\"''`“”‘’«»]+')"),
    Property("operator", "only operators such as = + - * / < >", r"regexp_full_match(body, '[-=+*/%<>&|^~@\\]+')"),
    Property(
        "non_latin", "letters of a script that is not Latin", r"regexp_full_match(text, '(?s).*[^\P{L}\p{Latin}].*')"
    ),
    Property("byte_fragment", "bytes that are no UTF-8 text alone", f"regexp_full_match(text, '{BYTES}')"),
)
