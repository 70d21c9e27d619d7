"""What a song is called, whoever writes it down: the keys by which `music.song_key` finds it.

Two services write one song in two ways: "Song (feat. B)" by "A" and "Song" by "A feat. B", "Song - 2011 Remaster", "SONG".  What
tells recordings apart (live, remix, acoustic, part numbers) stays: a wrong merge loses a song, a missed one shows it twice.
"""

import hashlib
import re
import unicodedata

MAX_KEY_BYTES = 1000  # what feedback takes for an id; an index entry of PostgreSQL holds 2,704 bytes, and here two keys
_GUEST = re.compile(r"\s*[(\[](?:feat|ft|featuring)\b\.?[^)\]]*[)\]]|\s+(?:feat|ft|featuring)\b\.?\s.*?(?=\s+[-–—]\s|\s*[(\[]|$)")
_REMASTER = re.compile(
    r"\s*(?:[-–—]\s+|[(\[])(?:(?:19|20)\d\d\s+)?(?:digital(?:ly)?\s+)?re-?master(?:ed)?(?:\s+version)?(?:\s+(?:19|20)\d\d)?[)\]]?\s*$"
)
# Signs that tell songs apart stay: a prelude in C# is not the one in C.
_BETWEEN_WORDS = re.compile(r"[^\w#%&@$+]+|_+")


def normal(text: str) -> str:
    """A text without what makes no difference; one of nothing but punctuation stays as it is.

    >>> normal("  AC/DC "), normal("!!!")
    ('ac dc', '!!!')
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "").replace("'", "")
    if not folded.isascii():  # vowels of Hindi or Thai are marks, which \\w does not know
        kept = "".join(sign if unicodedata.category(sign)[0] in "LMN" or sign in "#%&@$+" else " " for sign in folded)
        return " ".join(kept.split()) or folded.strip()
    return _BETWEEN_WORDS.sub(" ", folded).strip() or folded.strip()


def normal_artist(artist: str) -> str:
    """An artist without guests.

    >>> normal_artist("The Beatles feat. Billy Preston")
    'the beatles'
    """
    return normal(_GUEST.sub("", artist.lower()) or artist)


def normal_title(title: str) -> str:
    """A title without guests, and without a remaster's mark at its end.

    >>> normal_title("Help! - Remastered 2009"), normal_title("Call (feat. B) [Live]")
    ('help', 'call live')
    """
    plain = _REMASTER.sub("", _GUEST.sub("", title.lower()))
    return normal(plain) or normal(title)


def bounded(key: str) -> str:
    """A key that fits into an index: of a longer one, its beginning and a digest of the whole.

    >>> len(bounded("x" * 5000))
    1000
    """
    encoded = key.encode()
    if len(encoded) <= MAX_KEY_BYTES:
        return key
    digest = hashlib.sha256(encoded).hexdigest()
    return f"{encoded[: MAX_KEY_BYTES - len(digest) - 1].decode(errors='ignore')}:{digest}"
