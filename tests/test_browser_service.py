"""The page of the service in a headless Chromium: photos given, verdicts shown, errors said, keys, widths, dark, history."""

import json

import pytest
from PIL import Image

from conftest import SAMPLES, encoded, make_card, picture, write_model
from faceauth import load
from faceauth.explain import explain
from faceauth.server import keys
from scenes import group
from serving import serving

PORTRAIT = SAMPLES / "grace-hopper.jpg"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "brightness.onnx", make_card())


@pytest.fixture(scope="module")
def service(model):
    with serving("--model", model, "--max-bytes", 3_000_000) as running:
        yield running


def upload(name, data):
    """A file as playwright takes it."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def give(opened, *files):
    """Give photos, and wait until all are judged."""
    page = opened.page
    page.set_input_files("#files", [f if isinstance(f, dict) else upload(f.name, f.read_bytes()) for f in files])
    page.get_by_text(f"{len(files)} of {len(files)} judged").wait_for()
    return page


def clean(opened):
    """Nothing in the console, no request to another host, nothing serious for axe-core."""
    assert opened.complaints == []
    assert opened.requests == []
    assert opened.serious() == []


def test_an_upload_gets_the_services_verdict_with_its_evidence_and_report(service, open_page):
    row = service.client.post("/v1/detect", files={"files": ("p.jpg", PORTRAIT.read_bytes())}).json()[0]
    opened = open_page(service.url)
    page = give(opened, PORTRAIT)
    panel = page.get_by_role("region", name="Verdict")
    assert panel.locator(".word").inner_text().lower() == row["label"]
    assert f"Score {row['score']:.2f}" in panel.locator(".score").inner_text()
    page.get_by_role("button", name=f"Face 1: {row['label'].capitalize()}").wait_for()
    page.get_by_text("JPEG tables").wait_for()
    assert page.get_by_label("Heat map").count() == 0
    assert "do not leave it" in page.locator("#where").inner_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the report").click()
    report = json.loads(download.value.path().read_text())
    assert report["rows"][0]["score"] == row["score"] and report["provenance"]["findings"]
    clean(opened)


def test_three_at_once_and_each_says_what_became_of_it(service, open_page):
    opened = open_page(service.url, width=400)
    page = give(opened, PORTRAIT, upload("broken.jpg", b"\xff\xd8\xff nothing"), upload("flat.png", encoded(picture())))
    assert page.locator("#list .photo").count() == 3
    page.get_by_role("button", name="broken.jpg").click()
    assert page.get_by_role("region", name="Verdict").get_by_text("Not judged").is_visible()
    assert "broken or truncated" in page.get_by_role("region", name="Verdict").inner_text()
    page.get_by_role("button", name="flat.png").click()
    assert page.get_by_text("No face was found, so nothing was judged.").is_visible()
    assert opened.overflow() == 0
    clean(opened)


def test_of_an_animation_the_first_frame_is_judged_and_a_huge_picture_is_not(service, open_page):
    opened = open_page(service.url, width=400)
    with Image.open(PORTRAIT) as portrait:
        first = portrait.convert("RGB").resize((400, 480))
    moving = encoded(first, "GIF", save_all=True, append_images=[Image.new("RGB", first.size)], loop=0)
    gif = upload("moving.gif", moving) | {"mimeType": "image/gif"}
    page = give(opened, gif, upload("huge.png", encoded(Image.new("L", (8000, 8000)))))
    panel = page.get_by_role("region", name="Verdict")
    assert panel.get_by_text("An animation: its first frame was judged.").is_visible()
    assert page.locator("button.face").count() == 1
    page.get_by_role("button", name="huge.png").click()
    assert "8000 x 8000: more than the limit of 50,000,000 pixels (use a smaller copy)" in panel.inner_text()
    assert panel.get_by_text("first frame").count() == 0
    assert opened.overflow() == 0
    clean(opened)


def test_each_face_of_a_group_can_be_chosen_in_the_dark(service, open_page):
    opened = open_page(service.url, color_scheme="dark")
    scene, _ = group((900, 700), 3, 180, 1)
    page = give(opened, upload("group.png", encoded(scene)))
    faces = page.locator("button.face")
    assert faces.count() == 3
    faces.nth(2).click()
    assert page.get_by_text("Face 3 of 3").is_visible()
    assert faces.nth(2).get_attribute("aria-pressed") == "true"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, dark.removeprefix("rgb(").removesuffix(")").split(","))) < 150
    clean(opened)


def test_photos_are_pasted_and_dropped(service, open_page):
    opened = open_page(service.url)
    give_by = """([kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], kind + ".png", { type: "image/png" }));
        const options = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
        document.body.dispatchEvent(kind === "paste" ? new ClipboardEvent(kind, options) : new DragEvent(kind, options));
    }"""
    for kind in ("paste", "drop"):
        opened.page.evaluate(give_by, [kind, list(encoded(picture()))])
    opened.page.get_by_text("2 of 2 judged").wait_for()
    assert opened.page.locator("#list .name").all_inner_texts() == ["paste.png", "drop.png"]
    assert opened.page.locator("#list .verdict").all_inner_texts() == ["No face", "No face"]
    clean(opened)


def test_by_keyboard_alone(service, open_page):
    page = open_page(service.url).page
    choosers = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.reload()  # by then the browser hands its dialogs over
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_timeout(500)
    choosers[0].set_files([str(PORTRAIT), str(SAMPLES / "no-face.png")])
    page.get_by_text("2 of 2 judged").wait_for()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.dataset.focus ?? document.activeElement.id"))
    assert {"remove", "photo-0", "photo-1", "face-0", "meaning", "report", "keep"} <= set(reached)
    page.locator('[data-focus="photo-1"]').focus()
    page.keyboard.press("Enter")
    assert page.locator("h2.title").inner_text() == "no-face.png"
    assert page.evaluate("document.activeElement.dataset.focus") == "photo-1"


def test_an_explanation_is_drawn_and_its_heat_map_fades(service, model, open_page):
    found = explain(load(model), PORTRAIT).to_dict()
    opened = open_page(service.url)
    page = give(opened, PORTRAIT)
    page.get_by_role("button", name="Explain").click()
    page.locator("#explained").wait_for()
    assert page.evaluate("document.activeElement.id") == "detail"  # the button that had the focus is gone
    assert page.get_by_role("img", name="Score after edits").is_visible()
    page.get_by_label("Heat map").fill("0.2")
    assert page.locator(".heat").evaluate("node => node.style.opacity") == "0.2"
    left = found["faces"][0]["heat_map"]["region"][0] / found["verdict"]["width"]
    assert page.locator(".heat").evaluate("node => parseFloat(node.style.left)") == pytest.approx(100 * left, abs=0.1)
    clean(opened)


def test_the_history_is_off_until_wanted_and_can_be_cleared(service, open_page):
    opened = open_page(service.url)
    page = opened.page
    give(opened, PORTRAIT)
    assert page.evaluate("localStorage.length") == 0
    page.get_by_label("Keep small previews").check()
    page.get_by_role("button", name="Remove all").click()
    give(opened, PORTRAIT)
    page.reload()
    assert page.locator("#past li").count() == 1
    page.get_by_role("button", name="Clear the history").click()
    assert page.locator("#past li").count() == 0
    page.get_by_label("Keep small previews").uncheck()
    assert page.evaluate("localStorage.length") == 0


def test_a_service_that_is_busy_gone_or_without_explanations(service, open_page):
    page = open_page(service.url).page
    answers = [
        {"status": 429, "headers": {"Retry-After": "1"}, "json": {"detail": "64 requests are being judged"}},
        None,
    ]

    def answer(route):
        given = answers.pop(0) if answers else {}
        if given is None:
            route.abort()
        else:
            route.fulfill(**given) if given else route.continue_()

    page.route("**/v1/detect", answer)
    page.set_input_files("#files", str(PORTRAIT))
    page.get_by_text("The service does not answer.", exact=True).wait_for()
    assert answers == []  # the first was waited for
    page.get_by_role("button", name="Try again").click()
    page.locator(".word").wait_for()
    page.route("**/v1/explain", lambda route: route.fulfill(status=404, json={}))
    page.get_by_role("button", name="Explain").click()
    page.get_by_role("button", name="Explain").wait_for(state="detached")
    page.get_by_role("button", name="Download the report").wait_for()


def test_a_key_is_asked_for_and_the_photo_goes_on(model, tmp_path, open_page):
    key = keys.make("reviewers", tmp_path / "keys.txt")
    with serving("--model", model, "--api-keys", tmp_path / "keys.txt") as running:
        page = open_page(running.url).page
        page.set_input_files("#files", str(PORTRAIT))
        page.get_by_label("This service asks for a key").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("this key is not known").wait_for()
        page.get_by_label("This service asks for a key").fill(key)
        page.keyboard.press("Enter")
        page.get_by_text("1 of 1 judged").wait_for()
        page.locator(".word").wait_for()
        assert page.evaluate("localStorage.length") == 0
