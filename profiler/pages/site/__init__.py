"""A site of a run: a folder of pages that works from file:// and from any web server, and needs nothing else.

    index.html            the overview
    components.html       every head and neuron: a table to sort and to search
    cards/L2H3.html       the card of a component; the address stays the same in every site of every run
    behaviours.html, ...  the other reports that the run has rows for
    verdicts.html         every check of a circuit; the page of each is one click away
    queries.html#density  every query
    assets/               what the pages share, once: Vega, style, scripts, the table's data, the queries' text
    site.json             what made the site, of which run

The folder appears when all of it is written, and replaces a site only. A card that is there already, made by the same
code from the same run, is kept: cards can be made a few at a time, and a stopped site of thousands goes on where its
last finished folder ended. Cards are made by several processes, each with its own read-only connection.

Cost: about 1.2 seconds of a core (two thirds of it queries) and 70 kB per card; 0.9 MB of assets; the pages of the run
take a few seconds.
"""

from profiler.pages.site.folder import Progress, SiteSummary, build

__all__ = ["Progress", "SiteSummary", "build"]
