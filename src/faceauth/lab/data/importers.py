"""Known sources: how each lies on disk when it comes from its publisher, and what of it is taken.

An importer names its source, class, family, licence and home page; given a place, it says which
images it found, what it left out and why, and what is missing. It opens no image.

People are tied by the leading number of a wiki file name, `<id>_<birth>_<year>`, which is one person's: the wiki photo
and what DeepFakeFace made from it share a group, and so do several photos of one person. The partner whose face
`insight` swaps in is not named by its publisher, so it ties nothing.
"""

import difflib
import io
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from faceauth.errors import DataError, UsageError
from faceauth.lab.data.archives import ARCHIVES, Item, Listing, listing
from faceauth.lab.data.dataset import FETCH, read_dataset

_WIKI = re.compile(r"(?:^|/)(\d\d/(\d+)_[^/]+)\.\w+$")
_FAKES = re.compile(r"[1l]m_faces_(\d\d)")
Rule = Callable[[Listing], tuple[list[Item], Counter[str], list[str]]]
_NAME = re.compile(r"\w[\w .+-]{0,99}", re.ASCII)
HUB = "OpenRL/DeepFakeFace"  # https://huggingface.co/datasets/OpenRL/DeepFakeFace: four zips of 30,000 images


@dataclass(slots=True)
class Found:
    """One source as it lies on disk.

    Attributes:
        label: real or fake; family: real, gan, diffusion, swap, laundered.
        items: images that may be chosen; dropped: those that may not, by reason; missing: what is not there.
    """

    source: str
    label: str
    family: str
    items: list[Item]
    dropped: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)
    licence: str = ""
    home: str = ""

    def line(self) -> str:
        """What was found, in one line."""
        parts = [f"{self.source} ({self.label}): {len(self.items):,} images"]
        if +self.dropped:
            parts.append("left out " + ", ".join(f"{n:,} {why}" for why, n in sorted((+self.dropped).items())))
        if self.missing:
            parts.append("missing " + ", ".join(self.missing))
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Importer:
    """A published source; `hub` is the file of it in the Hugging Face data set `HUB`, empty where there is none."""

    source: str
    label: str
    family: str
    title: str
    licence: str
    home: str
    layout: str
    rule: Rule
    hub: str = ""

    def find(self, path: Path, scratch: Path) -> Found:
        """What lies at a place. Raises DataError where nothing can be read there."""
        seen = listing(_locate(path, self.source), scratch)
        items, dropped, gone = self.rule(seen)
        return Found(self.source, self.label, self.family, items, seen.dropped + dropped, gone, self.licence, self.home)


def _all(seen: Listing) -> tuple[list[Item], Counter[str], list[str]]:
    return seen.items, Counter(), []


def _celebahq(seen: Listing) -> tuple[list[Item], Counter[str], list[str]]:
    parts = {part: [i for i in seen.items if f"/{part}/" in f"/{i.name}"] for part in ("train", "valid")}
    missing = [f"the folder {part}/" for part, items in parts.items() if not items]
    if len(missing) == 2:
        return seen.items, Counter(), ["the folders train/ and valid/ (all images are taken)"]
    items = parts["train"] + parts["valid"]
    return items, Counter({"outside train/ and valid/": len(seen.items) - len(items)}), missing


def _deepfakeface(seen: Listing) -> tuple[list[Item], Counter[str], list[str]]:
    named, dropped = _by_person(seen.items)
    return [item for _, item in named], dropped, []


def _wiki(seen: Listing) -> tuple[list[Item], Counter[str], list[str]]:
    named, dropped = _by_person(seen.items)
    if "wiki.mat" not in seen.others:
        missing = "wiki.mat (so faceless and multi-face photos are not dropped)"
        return [item for _, item in named], dropped, [missing]
    verdicts = _face_verdicts(seen.others["wiki.mat"])
    kept = []
    for path, item in named:
        if verdict := verdicts.pop(path, "not in wiki.mat"):
            dropped[verdict] += 1
        else:
            kept.append(item)
    return kept, dropped, [f"{len(verdicts):,} images that wiki.mat names"] if verdicts else []


def _by_person(items: list[Item]) -> tuple[list[tuple[str, Item]], Counter[str]]:
    """Each image with its group, after its path without suffix as wiki.mat has it; and how many are not named so."""
    named = [(match[1], replace(i, group=f"wiki:{match[2]}")) for i in items if (match := _WIKI.search(i.name))]
    return named, Counter({"not named NN/<id>_<birth>_<year>": len(items) - len(named)})


def _face_verdicts(mat: Item) -> dict[str, str]:
    """By path without suffix: empty for one face, else why the photo is dropped.

    `face_score` is infinite where no face was found; `second_face_score` is NaN where there is no second face
    (Rothe et al., IJCV 2018, and the data set's page).
    """
    import numpy as np
    from scipy.io import loadmat

    try:
        wiki = loadmat(io.BytesIO(mat.read()))["wiki"][0, 0]
        paths = [str(p[0]).rpartition(".")[0] for p in wiki["full_path"].ravel()]
        scores, seconds = (np.asarray(wiki[k], float).ravel() for k in ("face_score", "second_face_score"))
        why = np.where(~np.isfinite(scores), "without a face", np.where(np.isnan(seconds), "", "with several faces"))
        return dict(zip(paths, map(str, why), strict=True))
    except Exception as error:  # whatever a broken MATLAB file raises from inside the reader
        raise DataError(f"{mat.origin} is not the wiki.mat of IMDB-WIKI: {error}", "fetch it again") from error


def _deepfake_face(folder: str, family: str, made: str) -> Importer:
    return Importer(
        folder, "fake", family, f"DeepFakeFace: {made}, 30,000", "OpenRAIL, as its page says",
        f"https://huggingface.co/datasets/{HUB}", "NN/<id>_<birth>_<year>.jpg, in a folder or a zip", _deepfakeface,
        f"{folder}.zip",
    )  # fmt: skip


KNOWN = {
    a.source: a
    for a in (
        Importer(
            "celebahq256_imgs", "real", "real", "CelebA-HQ at 256 px, 30,000",
            "CelebA: non-commercial research; CC BY-NC 4.0", "https://github.com/tkarras/progressive_growing_of_gans",
            "train/ and valid/ with JPEG or PNG files", _celebahq,
        ),
        Importer(
            "wiki", "real", "real", "the wiki set of IMDB-WIKI, 62,328", "academic research; photographs' own rights",
            "https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/",
            "NN/<id>_<birth>_<year>.jpg and wiki.mat; wiki_crop.tar, or the hub's wiki.zip (30,000, no wiki.mat)",
            _wiki, "wiki.zip",
        ),
        Importer(
            "1m_faces_00", "fake", "gan", "1 Million Fake Faces (StyleGAN, 1024 px)", "CC BY-NC 4.0",
            "https://archive.org/details/1mFakeFaces", "1m_faces_NN.tar or a folder of JPEG files", _all,
        ),
        Importer(
            "iFakeFaceDB", "fake", "laundered", "iFakeFaceDB (StyleGAN through GANprintR, 224 px), 87,000",
            "non-commercial research", "https://github.com/socialabubi/iFakeFaceDB",
            "a folder or zip of JPEG files", _all,
        ),
        _deepfake_face("text2img", "diffusion", "Stable Diffusion 1.5"),
        _deepfake_face("inpainting", "diffusion", "Stable Diffusion inpainting"),
        _deepfake_face("insight", "swap", "InsightFace swap"),
    )
}  # fmt: skip


def known(name: str) -> Importer | None:
    """The importer of a source's name, or None. Every `1m_faces_NN` has one; `lm_faces_NN` is the study's spelling."""
    match = _FAKES.fullmatch(name)
    return replace(KNOWN["1m_faces_00"], source=f"1m_faces_{match[1]}") if match else KNOWN.get(name)


def find(name: str, given: str, scratch: Path) -> list[Found]:
    """The sources of one `NAME=PATH[:real|:fake]`: several where PATH holds an images.csv.

    Raises:
        UsageError: a name that is neither known nor given a class, or cannot be a folder's.
        DataError: nothing can be read there, or no image is there.
    """
    path, colon, label = given.rpartition(":")
    if label not in {"real", "fake"} or not colon:
        path, label = given, ""
    place, importer = Path(path).expanduser(), known(name)
    if importer and label not in {"", importer.label}:
        hint = f"leave :{label} off, or take another name"
        raise UsageError(f"{importer.source} is {importer.label}, not {label}", hint)
    if importer:
        found = [importer.find(place, scratch)]
    elif label:
        seen = listing(place, scratch)
        found = [Found(name, label, "real" if label == "real" else "", seen.items, seen.dropped)]
    elif (place / "images.csv").is_file():
        found = _corpus(name, place)
    elif not place.exists():
        raise DataError(f"no folder {path!r} for {name}", FETCH)
    else:
        raise _unknown(name, path)
    for source in found:
        if not _NAME.fullmatch(source.source) or source.source.endswith((".", " ")):
            raise UsageError(f"{source.source!r} cannot be the name of a folder", "letters, digits, and . _ - + in it")
        if not source.items:
            hint = "looked for JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC files"
            if importer := known(source.source):
                hint = f"expected {importer.layout}"
            raise DataError(f"{source.line()} in {str(place)!r}", hint)
    return found


def _unknown(name: str, path: str) -> UsageError:
    names = {k.lower(): k for k in KNOWN}
    near = difflib.get_close_matches(name.lower(), names, 1, 0.7)
    hint = f"did you mean {names[near[0]]}? Otherwise " if near else ""
    return UsageError(
        f"{name!r} is no known source, and {path!r} has no images.csv",
        f"{hint}say what it is: {name}={path}:real or :fake",
    )  # fmt: skip


def _locate(path: Path, name: str) -> Path:
    """The folder or archive of a source, given itself or the folder that it lies in."""
    names = {name, name.replace("1m_", "lm_"), *(["wiki_crop"] if name == "wiki" else [])}
    if path.is_dir() and path.name not in names:
        for candidate in sorted(names):
            if (path / candidate).is_dir() and not (path / "wiki.mat").exists():
                return path / candidate
            for suffix in ARCHIVES:
                if (path / f"{candidate}{suffix}").is_file():
                    return path / f"{candidate}{suffix}"
    if not path.exists():
        raise DataError(f"no such folder or archive: {str(path)!r}", f"where does {name} lie?")
    return path


def _corpus(name: str, root: Path) -> list[Found]:
    """Each source of a folder with an images.csv; `edited` images are left out."""
    corpus = read_dataset(root)
    seen = {item.name: item for item in listing(root).items}
    sources: dict[str, Found] = {}
    for record in corpus.rows:
        if record.label == "edited":
            continue
        source = sources.setdefault(record.source, Found(record.source, record.label, record.family, []))
        item = seen.get(Path(record.path).as_posix())
        if item is None:
            source.dropped["symbolic links or no image files"] += 1
        else:
            source.items.append(replace(item, group=f"{name}:{record.group}" if record.group else ""))
    return list(sources.values())


def download(name: str) -> Path:
    """A source's archive from the Hugging Face hub, into its own cache; where it lies there.

    Raises:
        UsageError: it is not on the hub.
        DataError: the hub cannot be reached, or has no such file.
    """
    importer = known(name)
    if importer is None or not importer.hub:
        offered = ", ".join(a.source for a in KNOWN.values() if a.hub)
        raise UsageError(f"{name} cannot be downloaded", f"on the hub are {offered}; `faceauth lab sources` says more")
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(HUB, repo_type="dataset", allow_patterns=[importer.hub])
    except Exception as error:  # each release raises its HTTP library's own errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise DataError(
            f"cannot fetch {importer.hub} of {HUB} from the Hugging Face hub: {reason}",
            f"fetch it by hand from {importer.home} and give --data {name}=PATH",
        ) from error
    place = Path(str(folder)) / importer.hub
    if not place.exists():
        raise DataError(f"{HUB} holds no {importer.hub}", f"see {importer.home}")
    return place
