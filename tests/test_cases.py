"""Every case that users of this field reported, one line each: `pytest tests/test_cases.py -v`.

The cases are tests in cases_*.py, each named by the id of what it covers; the pictures are made there. `IDS` is every
id of the collection, and the last test holds that each has a test, or stands in `NOT_HERE` with the reason.
"""

# ruff: noqa: F403
import re

import pytest

MODULES = ("cases_claims", "cases_edits", "cases_faces", "cases_images", "cases_inputs", "cases_output")
pytest.register_assert_rewrite(*MODULES)

from cases_claims import *
from cases_edits import *
from cases_faces import *
from cases_images import *
from cases_inputs import *
from cases_output import *

IDS = """
D01; D02; D03; D04; D06-minus2; D06-minus30pct; D07; D08; D09; D10; D12; D13; D15; C01; C01b; D16; D17; D19; D20;
D22-P; D22-LA; D22-1; D22-L; D23; D23b; K01-sRGB linear; K01-LinearRec; K02; K04; O01; O03-90; O03-180; O03-270;
O03-30; O03-20; O03-15; C02; C03; C05; C06; C07; C08; C11; C12; C13; C14; C15; C17; C18; C19; C21;
C23-algorithmicMedia; C23-compositeSynthetic; C23-algorithmicallyEnhanced; C23-trainedAlgorithmicMedia; C24; C26;
C27-Grok; C27-Nano Banana; C27-HunyuanImage; C27-Recraft V3; C27-Bing Image Creator; C27-Microsoft Designer;
C27-Playground v3; C27-Meta AI; C27-Apple Image Playground; C27-Canva Magic Media; C27-Runway Gen-4; C27-Stability AI;
C27-FaceApp; C27-Remini; C27-Lensa; C29-Maria Gemini; C29-Studio Flux GmbH; C29-f.lux 4.1; C29-Imagen Mobile X2;
C29-Ideogram Design; C29-Reface Photo Album 2; I01; I02; I04; I07; P01-jsonl; P01-csv; P01-xlsx; P01-html; I10; I11;
I12; P02; P03; P04; R01; R02; R03; R04; R06; P06; P07; P08; P09; P10; P11; P12; E01; E02; E03; E04; E05; E06; E07;
E08; E09; T01; C31; C32; C33; C34; C34b; C35; C36; C37-Grok; C39-xiao-utf-16-be; C39-xiao-utf-16-le;
C39-cyr-utf-16-be; C39-cyr-utf-16-le; C39-ar-utf-16-le; C39-ja-utf-16-be; C39-ja-utf-16-le; C40; C41; C42;
F01-1600-96; F01-1600-96-all; F01-4000-200; F01-4000-200-all; F01-6000-250; F01-6000-250-all; F01-6000-160;
F01-6000-160-all; F01-6000-120; F01-6000-120-all; F02; F03; F04-64; F04-100; F05-1; F05-20; F06-white; F06-black;
F06-grey; F08; N01; N02; N03-float01; N03-chw; N03-rgba; N03-uint16; N07; X01; X02; X03; X04; X05; X06; X08; X09; X10;
X11; X12; X13; X14; X16; X17; X19; X20; X21; X23; X24; X25; X27; X28; X30; X31; X32
"""

NOT_HERE = {
    **dict.fromkeys(
        (f"F01-{size}-all" for size in ("1600-96", "4000-200", "6000-250", "6000-160", "6000-120")),
        "every face is judged without being asked for, so there is no such option; F01 without -all is the same",
    ),
    "X32": "needs the photographs of the corpus, which are in no repository; the shares are in `faceauth lab evaluate`",
}


def words(text):
    return set(re.findall("[a-z0-9]+", text.lower()))


def test_every_case_has_a_test_or_a_reason(request):
    names = [words(item.name) for item in request.node.getparent(pytest.Module).collect()]
    wanted = [case.strip() for case in IDS.split(";")]
    assert len(set(wanted)) == 185
    assert [c for c in wanted if c not in NOT_HERE and not any(words(c) <= name for name in names)] == []
    assert NOT_HERE.keys() <= set(wanted)
