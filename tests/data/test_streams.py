"""Compressed files as streams: frames, truncation, bombs, double compression."""

import gzip
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from demiglace.config.data import ReadConfig
from demiglace.data.text.readers import read_documents
from demiglace.data.text.streams import CHUNK, DamagedFileError, lines_of, open_source, unpacked
from demiglace.errors import DataError

PACK = {".gz": gzip.compress, ".zst": zstandard.compress}
LINES = b"a line of text\n" * 6000


def written(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    return str(file)


@pytest.mark.parametrize("ending", PACK)
def test_what_is_cut_off_or_damaged(tmp_path: Path, ending: str) -> None:
    packed = PACK[ending](LINES)
    assert b"".join(unpacked(written(tmp_path / f"x{ending}", packed * 3))) == LINES * 3
    with pytest.raises(DamagedFileError, match=r"cut off after \d+ decompressed bytes"):
        list(unpacked(written(tmp_path / f"x{ending}", packed[:-9])))
    with pytest.raises(DamagedFileError, match="is damaged after"):
        list(unpacked(written(tmp_path / f"x{ending}", packed + b"rubbish that is no frame")))


@pytest.mark.parametrize(("ending", "size", "times"), [(".gz", 150_000_000, 500), (".zst", 200_000_000, 2000)])
def test_what_is_made_to_burst_fills_no_memory(tmp_path: Path, ending: str, size: int, times: int) -> None:
    bomb = written(tmp_path / f"x.txt{ending}", PACK[ending](bytes(size)))
    tracemalloc.start()
    try:
        with pytest.raises(DamagedFileError, match=f"decompresses to more than {times} times its size"):
            list(read_documents(bomb, ReadConfig(unit="line")))
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("ending", PACK)
def test_pieces_are_small(tmp_path: Path, ending: str) -> None:
    sizes = [len(piece) for piece in unpacked(written(tmp_path / f"x{ending}", PACK[ending](bytes(20_000_000))))]
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= CHUNK


@pytest.mark.parametrize("inner", PACK)
@pytest.mark.parametrize("name", ["x.txt.gz", "x.txt.zst", "x.jsonl.zst", "x.txt.zst.gz", "x.txt.gz.zst", "x.html.gz"])
def test_double_compression_is_refused(tmp_path: Path, name: str, inner: str) -> None:
    file = written(tmp_path / name, PACK["." + name.rpartition(".")[2]](PACK[inner](LINES)))
    with pytest.raises(DamagedFileError, match="once more than its name says; decompress it"):
        list(read_documents(file, ReadConfig()))


@pytest.mark.parametrize("inner", PACK)
def test_compression_that_the_name_does_not_show(tmp_path: Path, inner: str) -> None:
    with pytest.raises(DamagedFileError, match="but its name does not end so"):
        list(unpacked(written(tmp_path / "x.txt", PACK[inner](LINES))))


def test_lines_end_where_pieces_do_not(tmp_path: Path) -> None:
    file = written(tmp_path / "x.txt", b"y" * (CHUNK - 1) + b"\r\nshort\n" + b"z" * 9)
    assert [len(line) for line in lines_of(file, CHUNK) if isinstance(line, bytes)] == [CHUNK - 1, 5, 9]


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.txt cannot be read: No such file or directory\. Check"):
        open_source(str(tmp_path / "no.txt"))
    with pytest.raises(DataError, match=r"no\.txt cannot be read: .*not exist"):
        open_source(f"file://{tmp_path}/no.txt")
