"""The page in a real Chromium, against the real service as a process of its own, with real photos.

What the service cannot easily be brought to answer (429, a full queue, a broken network, an operator without
feedback) Playwright puts in its place, at the one address in question; the tests that do so say so.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image

from nameplate.demo import photos_folder
from nameplate.images.decode import decode
from nameplate.model.model import Model
from tests.cli.run import nameplate
from tests.serve.browsing import PHONE, Open, identify, violations
from tests.serve.running import serving

for needed in ("fastapi", "uvicorn", "playwright", "axe_playwright_python"):
    pytest.importorskip(needed)

from playwright.sync_api import Page, Route, expect  # noqa: E402

WATCHED = """window.sent = []; const fetched = window.fetch;
window.fetch = async (address, options) => {
  const fields = [];
  for (const [name, value] of options.body ?? []) {
    if (typeof value === "string") { fields.push([name, value]); continue; }
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await value.arrayBuffer()));
    fields.push([name, [...digest].map(byte => byte.toString(16).padStart(2, "0")).join("")]);
  }
  if (fields.length) window.sent.push(fields);
  return fetched(address, options);
};"""
"""Notes what the page sends, files as their SHA-256: a browser shows others no form that has files."""
NASTY = "<img src=x onerror=window.harmed=1>.jpg"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head on some of the embedded photos."""
    folder = tmp_path_factory.mktemp("page")
    for each in photos_folder("train").iterdir():
        (folder / "photos" / each.name).mkdir(parents=True)
        for path in sorted(each.iterdir())[:25]:
            shutil.copy(path, folder / "photos" / each.name)
    nameplate("train", folder / "photos", "-o", folder / "designs", "--no-mirror")
    return folder / "designs"


@pytest.fixture(scope="module")
def url(bundle: Path) -> Iterator[str]:
    """The service over two models."""
    with serving(bundle, "cars196", "--feedback", bundle.parent / "feedback.sqlite") as running:
        yield running.url


@pytest.fixture(scope="module")
def cars() -> list[Path]:
    """One photo of each of the ten made-up nameplates; the last folder's name is what it shows."""
    return [sorted(folder.iterdir())[0] for folder in sorted(photos_folder("test").iterdir())]


@pytest.fixture
def broken(tmp_path: Path, cars: list[Path]) -> Path:
    """A photo that ends early, named so as to do harm."""
    path = tmp_path / NASTY
    path.write_bytes(cars[0].read_bytes()[:3000])
    return path


def to_view(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def to_verify(page: Page, claimed: str, *photos: Path) -> None:
    to_view(page, "Check an advert")
    page.set_input_files("#pick", photos)
    expect(page.locator("#tray li img")).to_have_count(len(photos))
    claim(page, claimed)


def claim(page: Page, claimed: str) -> None:
    page.get_by_label("Which car does the advert name?").fill(claimed)
    page.get_by_role("button", name="Check", exact=True).click()


def refuse(page: Page, address: str, status: int, kind: str, **headers: str) -> None:
    """Put a refusal in the service's place, until `page.unroute` takes it away."""
    problem = {
        "type": f"urn:nameplate:problem:{kind}",
        "title": kind,
        "status": status,
        "detail": f"The {kind} detail.",
    }
    body = json.dumps(problem)
    page.route(address, lambda route: route.fulfill(status=status, headers=headers, body=body,
                                                    content_type="application/problem+json"))  # fmt: skip


# what is served


def test_files_are_served_with_their_types_and_as_short_as_they_should_be(url: str) -> None:
    folder = Path(str(resources.files("nameplate.web"))) / "page"
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
    files = [path for path in folder.iterdir() if path.suffix in kinds]
    assert len(files) > 15
    for path in files:
        with urllib.request.urlopen(f"{url}/page/{path.name}") as answer:
            assert answer.read() == path.read_bytes()
            assert answer.headers["Content-Type"].startswith(kinds[path.suffix])
    assert sum(path.stat().st_size for path in files if path.suffix != ".jpg") < 120_000


def test_a_file_that_has_not_changed_is_not_sent_again(url: str) -> None:
    with urllib.request.urlopen(url) as answer:
        etag, policy = answer.headers["ETag"], answer.headers["Content-Security-Policy"]
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-cache"
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for sent in (etag, f'W/{etag}, "other"', "*"):
        request = urllib.request.Request(url, headers={"If-None-Match": sent})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        assert caught.value.code == 304
        assert caught.value.read() == b""


@pytest.mark.parametrize("name", ["..%2fpage.py", "../page.py", "%2e%2e/settings.py", "nothing.js", "index.html", ""])
def test_no_url_leads_out_of_the_folder(url: str, name: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{url}/page/{name}")
    assert caught.value.code == 404
    assert json.load(caught.value)["type"] == "urn:nameplate:problem:not-found"


# identify


def test_a_picked_photo_is_answered_as_the_command_line_answers(visit: Open, cars: list[Path], bundle: Path) -> None:
    page = visit()
    identify(page, cars[1])
    card = page.locator(".card")
    [said] = Model.load(str(bundle), runtime="onnxruntime").predict([cars[1]])
    assert said.nameplate is not None
    expect(card.locator(".best")).to_contain_text([said.nameplate])
    expect(card.locator(".best .number")).to_have_text(f"{100 * (said.confidence or 0):.1f}%")
    listed = [(name, share) for place, (name, share) in enumerate(said.top) if place == 0 or share >= 0.005]
    names = card.locator(".ranking .name").all_text_contents()
    assert names == [name for name, _ in listed]
    expect(card.locator(".verdict")).to_have_text(
        "Only this one fits" if said.verdict == "answer" else f"Probably one of the {len(said.candidates)} in bold"
    )
    widths = [float(each.evaluate("e => e.style.width").removesuffix("%")) for each in card.locator(".filled").all()]
    assert widths == pytest.approx([100 * chance for _, chance in listed], abs=0.01)
    expect(page.locator("#status")).to_contain_text(f"{cars[1].name}: {said.nameplate}")


def test_photos_may_be_dropped_and_pasted(visit: Open, cars: list[Path]) -> None:
    page = visit()
    transfer = page.evaluate_handle(
        """async bytes => { const transfer = new DataTransfer();
           transfer.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", {type: "image/jpeg"}));
           return transfer; }""",
        list(cars[0].read_bytes()),
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    expect(page.locator("html")).to_have_class("over")
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(page.locator(".card.done h3.file")).to_have_text("dropped.jpg")
    expect(page.locator("html")).not_to_have_class("over")
    page.evaluate(
        """transfer => document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer}))""", transfer
    )
    expect(page.locator("#visits li")).to_have_count(1)
    expect(page.locator(".card.done")).to_have_count(1)
    nothing = page.evaluate_handle(
        """() => { const transfer = new DataTransfer();
           transfer.setData("text/uri-list", "http://a/b.jpg"); return transfer; }"""
    )
    page.dispatch_event("body", "drop", {"dataTransfer": nothing})
    expect(page.locator("#limits")).to_contain_text("There was no photo in it")


def test_photos_go_whole_and_several_at_a_time(visit: Open, cars: list[Path]) -> None:
    page = visit(before=lambda page: page.add_init_script(WATCHED))
    identify(page, *cars[:6])
    digests = [["photos", hashlib.sha256(path.read_bytes()).hexdigest()] for path in cars[:6]]
    assert page.evaluate("window.sent") == [digests[:4], digests[4:]]
    expect(page.locator("h3.file")).to_have_text([path.name for path in cars[:6]])


def test_a_name_that_is_markup_stays_text_and_one_bad_photo_stops_nothing(
    visit: Open, cars: list[Path], broken: Path
) -> None:
    page = visit()
    identify(page, cars[0], broken, cars[1])
    bad = page.locator(".card").nth(1)
    expect(bad.locator("h3")).to_have_text(NASTY)
    expect(bad.locator(".verdict")).to_have_text("This photo cannot be read")
    expect(bad).to_contain_text("The file ends too early")
    identify(page, broken)  # alone: the service refuses, with the reason
    expect(page.locator(".card .verdict")).to_have_text("This photo cannot be read")
    expect(page.locator("#visits")).to_contain_text(NASTY)
    to_verify(page, f'{NASTY}"', cars[0])
    expect(page.locator("#halt")).to_contain_text("This model does not know “<img src=x")
    assert page.evaluate("window.harmed") is None
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "The file is empty."), (b"no photo at all", "can be read: JPEG, PNG, WebP, AVIF, GIF or BMP can.")],
)
def test_why_a_photo_cannot_be_read(visit: Open, tmp_path: Path, content: bytes, said: str) -> None:
    page = visit()
    path = tmp_path / "odd.jpg"
    path.write_bytes(content)
    identify(page, path)
    expect(page.locator(".card")).to_contain_text(said)
    expect(page.locator(".card .by")).to_have_text("Answered by designs")


def test_a_photo_over_the_limit_is_not_sent(visit: Open, cars: list[Path], tmp_path: Path) -> None:
    page = visit()
    sent = []
    page.on("request", lambda request: sent.append(request.url) if "identify" in request.url else None)
    large = tmp_path / "large.jpg"
    large.write_bytes(cars[0].read_bytes() + bytes(21 * 2**20))
    page.set_input_files("#pick", [large])
    expect(page.locator(".card.refused .verdict")).to_contain_text("The file has 21.1 MiB; up to 20 MiB can be sent.")
    assert sent == []

    def small(route: Route) -> None:
        known = route.fetch().json()
        known["limits"]["pixels"] = 50_000
        route.fulfill(json=known)

    page = visit(before=lambda page: page.route("**/v1/service", small))  # a limit that another operator may set
    page.set_input_files("#pick", [cars[0]])
    expect(page.locator(".card.refused .verdict")).to_contain_text("0.1 megapixels")


def test_a_photo_that_is_picked_before_the_page_listens_is_answered(visit: Open, cars: list[Path]) -> None:
    def pick_early(page: Page) -> None:
        def pick(route: Route) -> None:
            page.set_input_files("#pick", cars[:2])
            route.continue_()

        page.route("**/page/main.js", pick)

    page = visit(before=pick_early)
    expect(page.locator("#cards .card.done")).to_have_count(2)
    assert page.eval_on_selector("#pick", "input => input.value") == ""


def test_the_verdicts_of_another_model(visit: Open, cars: list[Path]) -> None:
    page = visit()
    expect(page.locator("#knows")).to_have_text("knows 10 makes and models")
    page.locator("#model").select_option("cars196")
    expect(page.locator("#knows")).to_have_text("knows 206 makes and models")
    identify(page, *cars[:4])
    verdicts = set(page.locator(".card .verdict").all_text_contents())
    assert verdicts & {"A car that this model does not know", "Not a car"}
    strange = page.locator(".card", has_text="Answered by cars196").filter(has=page.locator("details")).first
    expect(strange.locator(".best")).to_have_count(0)
    strange.locator("summary").click()
    expect(strange.locator(".ranking li").first).to_be_visible()


@pytest.mark.parametrize(
    ("language", "said", "why"),
    [
        ("en-GB", "This photo is not good enough to tell", "too dark: take it in better light"),
        ("ru-RU", "По такой фотографии не определить", "слишком тёмная: снимите при хорошем свете"),
    ],
)
def test_a_poor_photo_is_told_with_what_to_do(
    visit: Open, cars: list[Path], tmp_path: Path, language: str, said: str, why: str
) -> None:
    Image.open(cars[0]).convert("RGB").point(lambda value: value // 8).save(tmp_path / "dark.jpg")
    page = visit(locale=language)
    page.locator("#model").select_option("cars196")
    identify(page, tmp_path / "dark.jpg")
    expect(page.locator(".card .verdict")).to_have_text(said)
    expect(page.locator(".card")).to_contain_text(why)


def test_the_heat_map_comes_when_asked_for(visit: Open, bundle: Path, cars: list[Path]) -> None:
    page = visit()
    identify(page, cars[0])
    page.get_by_role("button", name="Show why").click()
    image = page.locator(".framed img")
    expect(image).to_have_attribute("src", re.compile("^data:image/png;base64,"))
    assert image.evaluate("e => e.decode().then(() => e.naturalWidth)") > 100
    outer, frame = page.locator(".framed").bounding_box(), page.locator(".frame").bounding_box()
    assert outer is not None
    assert frame is not None
    [answer] = Model.load(str(bundle), runtime="onnxruntime").predict(cars[0])
    photo = decode(cars[0])
    assert answer.box is not None
    # The frame covers 15 % of what was named, which is the crop of the car.
    named = (answer.box.right - answer.box.left) * (answer.box.bottom - answer.box.top) / photo[..., 0].size
    assert frame["width"] * frame["height"] == pytest.approx(0.15 * named * outer["width"] * outer["height"], rel=0.2)
    expect(page.locator("figcaption")).to_contain_text("Red speaks for")
    expect(page.get_by_role("button", name="Show the photo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".frame")).to_have_count(0)  # and the box of the car is there again
    expect(page.locator(".framed .car")).to_have_count(1)


# verify


def test_an_advert_is_accepted_or_rejected_from_all_its_photos(visit: Open, bundle: Path, broken: Path) -> None:
    page = visit()
    model = Model.load(str(bundle), runtime="onnxruntime")
    adverts = [(folder.name, sorted(folder.iterdir())[:2]) for folder in sorted(photos_folder("test").iterdir())]
    truth, photos = next(advert for advert in adverts if model.verify(advert[1], advert[0]).verdict == "accept")
    wrong = "Vessoro" if "Vessoro" not in truth else "Ostrel"
    to_view(page, "Check an advert")
    page.set_input_files("#pick", [*photos, broken])
    expect(page.locator("#tray-title")).to_have_text("3 photos of the advert")
    claim(page, truth)
    expect(page.locator(".advert h3")).to_have_text(f"Yes: the photos show “{truth}”")
    expect(page.locator(".advert .verdict")).to_have_text(re.compile(r"Match: [\d.]+%"))
    expect(page.locator(".parts li .number")).to_have_text([re.compile(r"\d%"), re.compile(r"\d%"), "not counted"])
    page.get_by_role("button", name=f"Remove {NASTY}").click()
    expect(page.locator("#tray li")).to_have_count(2)
    page.get_by_label("Which car does the advert name?").fill(wrong)
    page.keyboard.press("Enter")
    expect(page.locator(".advert h3")).to_have_text(f"No: the photos do not show “{wrong}”")
    expect(page.locator(".advert")).to_contain_text("Any of 2 makes and models")
    expect(page.locator("#visits li")).to_have_count(1)
    assert page.locator("#nameplates option").count() >= 10


def test_a_claim_that_the_model_does_not_know_offers_the_nearest_names(visit: Open, cars: list[Path]) -> None:
    page = visit()
    to_verify(page, "Corvane Larg", cars[0])
    box = page.locator("#halt [role=alert]")
    expect(box).to_contain_text("This model does not know “Corvane Larg”. Did you mean one of these?")
    expect(box.get_by_role("button").first).to_have_text("Corvane Lark")
    box.get_by_role("button").first.click()
    expect(page.locator(".advert h3")).to_contain_text("“Corvane Lark”")
    claim(page, "Xyzzy")
    expect(box).to_have_text("This model does not know “Xyzzy”.")


def test_each_view_has_its_own_answers(visit: Open, cars: list[Path]) -> None:
    page = visit()
    expect(page.locator("#limits")).to_contain_text("Up to 500 photos")
    identify(page, cars[0])
    expect(page.locator("#claim")).to_be_hidden()
    to_view(page, "Check an advert")
    expect(page.locator("#limits")).to_contain_text("Up to 20 photos")
    expect(page.locator(".card")).to_have_count(0)
    claim(page, "Corvane")
    expect(page.locator(".card")).to_have_count(1)
    to_view(page, "Name a car")
    expect(page.locator(".card.done h3")).to_have_text(cars[0].name)
    expect(page.locator("#history")).to_be_hidden()  # both are seen, each in its view
    page.reload()
    page.get_by_role("button", name=re.compile("^Show again: Corvane")).click()
    expect(page.get_by_role("tab", name="Check an advert")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".advert h3")).to_be_focused()


def test_more_photos_than_one_request_may_bring_are_not_sent(visit: Open, cars: list[Path]) -> None:
    page = visit()
    to_verify(page, "Corvane", *cars, *cars, cars[0])
    expect(page.locator("#tray-title")).to_have_text(
        "21 photos are too many for one advert; this server takes up to 20. Remove some."
    )


def test_what_was_identified_may_be_verified(visit: Open, cars: list[Path]) -> None:
    page = visit()
    identify(page, *cars[:2])
    to_view(page, "Check an advert")
    expect(page.locator("#tray li")).to_have_count(2)


# history, feedback, settings


def test_the_history_lasts_as_long_as_the_tab(visit: Open, cars: list[Path]) -> None:
    page = visit()
    identify(page, cars[0])
    identify(page, cars[1])
    visits = page.locator("#visits button")
    expect(visits).to_have_count(1)
    expect(visits.locator("img")).to_have_attribute("src", re.compile("^data:image/jpeg"))
    visits.click()
    expect(page.locator(".card h3")).to_be_focused()
    expect(page.locator(".card h3")).to_have_text(cars[0].name)
    page.reload()
    expect(page.locator("#visits button")).to_have_count(2)
    page.locator("#visits button").first.click()
    expect(page.locator(".card")).to_contain_text("add the photo again")
    page.get_by_role("button", name="Forget all").click()
    expect(page.locator("#history")).to_be_hidden()
    assert page.evaluate("sessionStorage.getItem('nameplate.history')") is None
    page.reload()
    expect(page.locator("#limits")).not_to_be_empty()
    expect(page.locator("#history")).to_be_hidden()
    assert page.evaluate("Object.keys(localStorage).length") == 0


def test_feedback_says_what_is_stored_and_stores_that(
    visit: Open, bundle: Path, cars: list[Path], tmp_path: Path
) -> None:
    page = visit(before=lambda page: page.add_init_script(WATCHED))
    identify(page, cars[0])
    page.get_by_role("button", name="Wrong? Tell us").click()
    expect(page.get_by_role("dialog")).to_contain_text(
        f"the photo “{cars[0].name}”, the answer that was given and what you"
    )
    page.get_by_label("The right make and model").fill("Halden Pine")
    page.get_by_label("Comment (optional)").fill("seen at night")
    assert len(page.evaluate("window.sent")) == 1  # the photo, to be identified
    predicted = page.locator(".ranking .name").first.text_content()
    page.get_by_role("button", name="Send and store").click()
    expect(page.locator(".card")).to_contain_text("Stored. Thank you!")
    database = bundle.parent / "feedback.sqlite"
    [stored] = json.loads(nameplate("feedback", "list", database, "--json").stdout)
    assert stored["sha256"] == hashlib.sha256(cars[0].read_bytes()).hexdigest()
    said = {name: stored[name] for name in ("nameplate", "predicted", "model", "comment")}
    assert said == {
        "nameplate": "Halden Pine",
        "predicted": predicted,
        "model": "designs",
        "comment": "seen at night",
    }
    nameplate("feedback", "export", database, "-o", tmp_path / "corrections")
    [photo] = [path for path in (tmp_path / "corrections").rglob("*") if path.suffix in (".jpg", ".jpeg")]
    assert photo.read_bytes() == cars[0].read_bytes()


def test_feedback_that_is_refused_keeps_the_form(visit: Open, cars: list[Path]) -> None:
    """The refusal is put in the service's place."""
    page = visit(before=lambda page: refuse(page, "**/v1/feedback", 503, "full"))
    identify(page, cars[0])
    page.get_by_role("button", name="Wrong? Tell us").click()
    page.get_by_label("The right make and model").fill("Halden Pine")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("The server is busy")
    expect(page.get_by_label("The right make and model")).to_have_value("Halden Pine")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Wrong? Tell us")).to_be_focused()


def test_without_feedback_nobody_is_asked(visit: Open, cars: list[Path]) -> None:
    """What another operator's service says is put in this one's place."""
    page = visit(before=lambda page: page.route(
        "**/v1/service", lambda route: route.fulfill(json={**route.fetch().json(), "feedback": False})))  # fmt: skip
    identify(page, cars[0])
    expect(page.locator("[data-role=heat]")).to_have_count(1)
    expect(page.locator("[data-role=wrong]")).to_have_count(0)


def test_language_and_appearance_are_remembered(visit: Open, cars: list[Path]) -> None:
    page = visit(color_scheme="light")
    identify(page, cars[0])
    paper = page.locator("html").evaluate("e => getComputedStyle(e).backgroundColor")
    page.get_by_label("Language").select_option("ru")
    expect(page.locator("h1")).to_have_text("Что это за автомобиль?")
    expect(page.locator(".card .verdict")).to_have_text(re.compile("Подходит только эта модель|Скорее всего, одна из"))
    page.get_by_label("Оформление").select_option("dark")
    page.reload()
    expect(page.locator("h1")).to_have_text("Что это за автомобиль?")
    assert page.locator("html").get_attribute("lang") == "ru"
    assert page.locator("html").evaluate("e => getComputedStyle(e).backgroundColor") != paper


def test_both_languages_say_all_and_decline_rightly(visit: Open) -> None:
    page = visit(locale="ru-RU")
    expect(page.locator("h1")).to_have_text("Что это за автомобиль?")
    words = page.evaluate("import('/page/words.js').then(({WORDS}) => WORDS)")
    assert shape(words["en"], {"one", "other"}) == shape(words["ru"], {"one", "few", "many", "other"})
    said = page.evaluate(
        "import('/page/language.js').then(({say}) => [1, 2, 5, 11, 21, 104].map(count => say('againIn', {count})))"
    )
    assert [each.split()[-1] for each in said] == ["секунду", "секунды", "секунд", "секунд", "секунду", "секунды"]
    percents = page.evaluate("import('/page/language.js').then(({percent}) => [0.99999, 0.5, 0.00001].map(percent))")
    assert [re.sub(r"\s", "", each) for each in percents] == [">99,9%", "50,0%", "<0,1%"]


def shape(words: object, forms: set[str]) -> object:
    """Keys and placeholders of texts; a text with all plural forms of its language counts as one."""
    if isinstance(words, dict):
        if set(words) & {"one", "other"}:
            assert set(words) == forms
            return shape(words["other"], forms)
        return {key: shape(value, forms) for key, value in words.items()}
    if isinstance(words, list):
        return [shape(each, forms) for each in words]
    assert isinstance(words, str)
    assert words
    return sorted(set(re.findall(r"\{\w+\}", words)))


# what goes wrong; the refusals are put in the service's place


def test_too_many_requests_counts_down_and_tries_again(visit: Open, cars: list[Path]) -> None:
    page = visit()
    refuse(page, "**/v1/identify*", 429, "too-many", **{"Retry-After": "1"})
    page.set_input_files("#pick", cars[:2])
    box = page.locator("#halt [role=alert]")
    expect(box).to_contain_text("Too many requests")
    again = box.get_by_role("button")
    expect(again).to_have_text(re.compile("Try again in 1 second"))
    again.click()
    expect(box).to_be_visible()  # not yet
    expect(page.locator(".card.stopped")).to_have_count(2)
    expect(again).to_have_text("Try again")
    expect(page.locator("#status")).to_have_text("You can try again now.")
    page.unroute("**/v1/identify*")
    again.click()
    expect(page.locator(".card.done")).to_have_count(2)
    expect(box).to_have_count(0)


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (503, "full", "The server is busy"),
        (503, "late", "The answer took too long"),
        (503, "not-ready", "The server is still starting"),
        (413, "too-large", "That is too much at once"),
        (500, "novel", "Something went wrong on the server"),
    ],
)
def test_refusals_in_words(visit: Open, cars: list[Path], status: int, kind: str, said: str) -> None:
    page = visit()
    refuse(page, "**/v1/identify*", status, kind)
    page.set_input_files("#pick", [cars[0]])
    box = page.locator("#halt [role=alert]")
    expect(box.locator("p")).to_have_text(re.compile(f"^{said}: [^.]*[.]$"))  # one sentence
    expect(box.get_by_role("button", name="Try again")).to_have_count(0 if kind == "too-large" else 1)


def test_no_network_and_a_proxy_that_answers_in_html(visit: Open, cars: list[Path]) -> None:
    page = visit()
    page.route("**/v1/identify*", lambda route: route.abort("connectionrefused"))
    page.set_input_files("#pick", [cars[0]])
    expect(page.locator("#halt")).to_contain_text("The server cannot be reached")
    page.unroute("**/v1/identify*")
    page.route("**/v1/identify*", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#halt")).to_contain_text("The server cannot be reached")
    page.unroute("**/v1/identify*")
    page.context.set_offline(True)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#halt")).to_contain_text("You are offline")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card.done")).to_have_count(1)


def test_a_service_that_does_not_answer_at_first(visit: Open, cars: list[Path]) -> None:
    page = visit(before=lambda page: page.route("**/v1/models", lambda route: route.abort()))
    expect(page.locator("#trouble")).to_contain_text("The server cannot be reached")
    page.unroute("**/v1/models")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#chooser")).to_be_visible()
    expect(page.locator("#trouble")).to_be_empty()


def test_waiting_may_be_cancelled_and_gone_on_with(visit: Open, cars: list[Path]) -> None:
    page = visit()
    page.route("**/v1/identify*", lambda _: None)  # never answers
    page.set_input_files("#pick", cars[:5])
    expect(page.locator("#progress-text")).to_have_text("0 of 5 photos")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#halt")).to_contain_text("Cancelled.")
    expect(page.locator(".card.stopped")).to_have_count(5)
    page.unroute("**/v1/identify*")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator(".card.done")).to_have_count(5)


def test_what_is_asked_for_meanwhile_waits_its_turn(visit: Open, cars: list[Path]) -> None:
    """The answers are held back on their way."""
    page = visit()
    held: list[Route] = []
    page.route("**/v1/identify*", lambda route: held.append(route), times=1)
    page.set_input_files("#pick", [cars[0]])
    expect(page.locator(".card.sent")).to_have_count(1)
    page.set_input_files("#pick", [cars[1]])
    expect(page.locator("#progress-text")).to_have_text("0 of 2 photos")
    to_view(page, "Check an advert")
    expect(page.locator("#tray img")).to_have_count(2)
    claim(page, "Corvane")
    held[0].continue_()
    expect(page.locator(".advert")).to_have_count(1)
    to_view(page, "Name a car")
    expect(page.locator(".card.done")).to_have_count(2)


def test_a_service_that_wants_a_key_gets_it(visit: Open, bundle: Path, cars: list[Path], tmp_path: Path) -> None:
    key = json.loads(nameplate("keys", "add", tmp_path / "keys", "me", "--json").stdout)["key"]
    with serving(bundle, "--keys", tmp_path / "keys") as guarded:
        page = visit(at=guarded.url)
        field = page.get_by_label("API key")
        expect(field).to_be_focused()
        for wrong in ("ключ", "wrong"):
            field.fill(wrong)
            page.keyboard.press("Enter")
            expect(page.locator("#trouble")).to_contain_text("A valid API key is needed")
        page.set_input_files("#pick", [cars[0]])
        expect(page.locator("#halt")).to_contain_text("A valid API key is needed")
        expect(field).to_be_focused()
        field.fill(key)
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#trouble")).to_be_empty()
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".card.done")).to_have_count(1)
        assert page.evaluate("sessionStorage.getItem('nameplate.key')") == key
        assert page.evaluate("localStorage.getItem('nameplate.key')") is None


# for everyone


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_is_wider_than_a_phone(
    visit: Open, cars: list[Path], broken: Path, theme: str
) -> None:
    """In every state that the page has. An address that does not answer is put in the service's place."""
    page = visit(**{**PHONE, "locale": "en-GB"}, color_scheme=theme)

    def check() -> None:
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == 360

    check()
    identify(page, cars[0], broken)
    page.locator("[data-role=heat]").click()
    expect(page.locator(".framed img")).to_be_visible()
    check()
    page.locator("[data-role=wrong]").click()
    check()
    page.keyboard.press("Escape")
    to_view(page, "Check an advert")
    expect(page.locator("#tray li img")).to_have_count(1)  # the photos that were identified
    claim(page, "Corvane")
    expect(page.locator(".advert")).to_be_visible()
    check()
    to_view(page, "Name a car")
    page.locator("#model").select_option("cars196")
    identify(page, cars[0])
    check()
    refuse(page, "**/v1/identify*", 429, "too-many", **{"Retry-After": "60"})
    page.set_input_files("#pick", [cars[0]])
    expect(page.locator("#halt [role=alert]")).to_be_visible()
    check()
    page.unroute("**/v1/identify*")
    page.route("**/v1/identify*", lambda _: None)
    page.set_input_files("#pick", cars[:2])
    expect(page.locator("#running")).to_be_visible()
    check()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#halt")).to_contain_text("Cancelled.")
    check()


def test_a_phone_in_russian_has_a_camera(visit: Open, cars: list[Path]) -> None:
    page = visit(**PHONE)
    camera = page.locator("#camera")
    assert camera.get_attribute("capture") == "environment"
    assert camera.get_attribute("accept") == "image/*"
    camera.set_input_files(cars[0])
    expect(page.locator(".card.done")).to_have_count(1)
    expect(page.locator(".ranking .number").first).to_have_text(re.compile(r"^\d+,\d\s%$"))
    identify(page, *cars[:5])
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert violations(page) == []


def test_by_keyboard_alone(visit: Open, cars: list[Path]) -> None:
    page = visit(before=lambda page: page.on("filechooser", lambda chooser: chooser.set_files(cars[0])))
    keys = page.keyboard
    held: list[Route] = []
    page.route("**/v1/identify*heatmap*", lambda route: held.append(route))

    def tab_to(selector: str) -> None:
        for _ in range(40):
            keys.press("Tab")
            if page.locator(selector).evaluate("e => e === document.activeElement"):
                outlined = "e => [e, e.parentElement].some(each => getComputedStyle(each).outlineStyle === 'solid')"
                assert page.locator(selector).evaluate(outlined), f"the focus on {selector} cannot be seen"
                return
        raise AssertionError(f"{selector} is not reached")

    keys.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    keys.press("Enter")
    expect(page.locator("#photos")).to_be_focused()
    tab_to("#pick")
    keys.press("Space")
    expect(page.locator(".card.done")).to_be_visible()
    tab_to("[data-role=heat]")
    keys.press("Enter")
    tab_to("[data-role=wrong]")
    keys.press("Enter")
    expect(page.get_by_label("The right make and model")).to_be_focused()
    held[0].continue_()  # the card is drawn anew while its form is open
    expect(page.locator(".frame")).to_be_attached()
    keys.press("Escape")
    expect(page.locator("[data-role=wrong]")).to_be_focused()
    page.get_by_role("tab", name="Name a car").focus()
    keys.press("ArrowRight")
    expect(page.locator("#claim")).to_be_visible()
    tab_to("#claimed")
    keys.type("Corvane")
    keys.press("Enter")
    expect(page.locator("#answers-title")).to_be_focused()
    expect(page.locator(".advert")).to_be_visible()
