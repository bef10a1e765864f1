"""Stop strings in a growing text, however it is cut into pieces."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.workers.inference.stops import Stops

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PIECES = st.lists(st.text("ab\n", max_size=4), max_size=12)
STRINGS = st.lists(st.text("ab\n", min_size=1, max_size=5), min_size=1, max_size=4)


@relaxed
@given(PIECES, STRINGS)
def test_the_text_ends_before_the_first_piece_in_which_a_string_is_whole(
    pieces: list[str], strings: list[str]
) -> None:
    stops = Stops(strings)
    text = ""
    for piece in pieces:
        text += piece
        ended = stops.feed(piece)
        places = [text.find(string) for string in strings]
        found = [(place, n) for n, place in enumerate(places) if place >= 0]
        assert ended == bool(found)
        if ended:
            place, number = min(found)
            assert (stops.text, stops.found) == (text[:place], strings[number])
            return
        assert (stops.text, stops.found) == (text, None)


def test_a_string_across_pieces_is_found_and_cut_out_whole() -> None:
    stops = Stops(["\n\nUser:"])
    assert [stops.feed(piece) for piece in ("yes.\n", "\nUs", "er", ": no")] == [False] * 3 + [True]
    assert (stops.text, stops.found) == ("yes.", "\n\nUser:")


def test_among_strings_at_one_place_the_first_of_the_request_is_named() -> None:
    stops = Stops(["ab", "a"])
    assert stops.feed("xab") and stops.found == "ab" and stops.text == "x"
    stops = Stops(["a", "ab"])
    assert stops.feed("xab") and stops.found == "a"


def test_what_ends_in_a_piece_that_is_not_searched_does_not_count() -> None:
    stops = Stops(["ab"])
    assert not stops.feed("xab", search=False)
    assert not stops.feed("a")
    assert stops.feed("b") and stops.text == "xab"
