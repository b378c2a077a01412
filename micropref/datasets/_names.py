"""What the columns of preference files are called: one table of names for each role, whatever their spelling."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import product

__all__ = ["CHOSEN_PAIRS", "GIVEN_PAIRS", "NAMES", "canonical", "nearest", "spelled"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: Names of each role as `spelled` writes them; the first is the library's own.
NAMES: dict[str, tuple[str, ...]] = {
    role: _words(names)
    for role, names in {
        "prompt": """
            prompt question instruction query input userprompt userquery userinput inputtext prompttext questiontext
            promptmessages inputmessages post body history dialoguehistory chathistory conversation conversations
            dialogue dialog messages
        """,
        "system": "system systemprompt systemmessage systeminstruction systemtext",
        "label": """
            label preference winner better choice labels preferred pairwise comparison verdict vote judgment judgement
            selected selection preferredresponse betterresponse bestresponse chosenresponse preferredanswer
            betteranswer humanpreference preferencelabel preferredoutput chosen
        """,
        "tie": "tie istie",
        "context": "context",
        "group": """
            group user userid worker workerid annotator annotatorid labeler labelerid labeller labellerid judge
            judgeid rater raterid completedby evaluator evaluatorid assessor assessorid participant participantid
            respondent respondentid voter voterid crowdworker crowdworkerid username annotatorname
        """,
        "weight": "weight sampleweight",
        "response": """
            response completion output answer reply generation candidate text continuation modeloutput modelresponse
        """,
        "responses": "responses completions outputs answers candidates generations",
    }.items()
}

_NOUNS = _words("""
    response answer completion output reply generation continuation candidate conversation dialogue dialog chat
    summary text message messages passage story sample solution translation result resp ans out humanref modeloutput
    modelresponse modelanswer assistant assistantresponse responsetext option item argument sentence document
""")
_MARKS = (("a", "b"), ("1", "2"), ("0", "1"), ("first", "second"), ("left", "right"), ("one", "two"))
# The preferred one and the other.
_CHOSEN_WORDS = _words("""
    chosen/rejected chosen/reject preferred/rejected preferred/dispreferred preferred/nonpreferred
    preferred/unpreferred preferred/notpreferred accepted/rejected better/worse winner/loser win/lose
    winning/losing best/worst selected/rejected
""")
_CHOSEN = tuple((good, bad) for good, _, bad in (words.partition("/") for words in _CHOSEN_WORDS))
_OF_CHOSEN = (*_NOUNS[:8], "summary", "text", "messages")


def _given_pairs() -> dict[tuple[str, str], None]:
    library = (("responsea", "responseb"), ("first", "second"), ("response1", "response2"))
    named = (
        pair
        for noun, (one, other) in product(_NOUNS, _MARKS)
        for pair in ((noun + one, noun + other), (one + noun, other + noun))
        if not (one.isdigit() and pair[0][0].isdigit())
    )
    return dict.fromkeys((*library, *named, ("left", "right"), ("a", "b")))


def _chosen_pairs() -> dict[tuple[str, str], None]:
    named = (
        pair
        for (good, bad), noun in product(_CHOSEN, _OF_CHOSEN)
        for pair in ((good + noun, bad + noun), (noun + good, noun + bad))
    )
    return dict.fromkeys((*_CHOSEN, *named))


#: Pairs of columns of which the first holds the preferred response.
CHOSEN_PAIRS = tuple(_chosen_pairs())
#: Pairs of columns with two responses in an order that says nothing of which was preferred.
GIVEN_PAIRS = tuple(_given_pairs())

_ROLE_OF = {name: role for role, names in NAMES.items() if role not in ("response", "responses") for name in names}


def spelled(name: object) -> str:
    """A name without case, width, spaces and punctuation: ``"Response A"``, ``"response_a"``, ``"responseA"`` alike."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", str(name)).casefold())


def canonical(role: str) -> str:
    """The role that a name given by the caller stands for, such as "group" of "user_id"; the name if it is none."""
    key = spelled(role)
    own = {"chosen": "chosen", "rejected": "rejected"}
    return own.get(key) or _ROLE_OF.get(key, role)


def columns_called(role: str, columns: Iterable[str]) -> list[str]:
    """Columns that have a name of the role, the library's own name first and then in the order of `NAMES`."""
    rank = {name: place for place, name in enumerate(NAMES[role])}
    found = [name for name in columns if spelled(name) in rank]
    return sorted(found, key=lambda name: rank[spelled(name)])


def pairs_called(pairs: Iterable[tuple[str, str]], columns: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs of columns that have the names of one of `pairs`."""
    column_of: dict[str, str] = {}
    for name in columns:
        column_of.setdefault(spelled(name), name)
    return [(column_of[one], column_of[other]) for one, other in pairs if one in column_of and other in column_of]


def nearest(name: str, columns: Iterable[str]) -> str:
    """The nearest column for a message: ``; did you mean 'prompt'?``, or nothing."""
    by_spelling: Mapping[str, str] = {spelled(column): column for column in columns}
    close = difflib.get_close_matches(spelled(name), by_spelling, n=1, cutoff=0.6)
    return f"; did you mean {by_spelling[close[0]]!r}?" if close else ""
