"""The page for everybody: without a mouse, on a phone, in both themes, and as axe-core judges it."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.web.test_page import drawn, listed, panel, suggested, take_playlist

PANELS = ("Try it", "Why", "Flow", "Model card", "Popularity", "Map", "Health")
PHONE = {"width": 375, "height": 740}


def violations(page):
    """What axe-core finds wrong in either theme, one line each."""
    found = []
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        wrong = Axe().run(page).response["violations"]
        found += [f"{scheme}: {one['id']}: {node['target']} {node['failureSummary']}" for one in wrong for node in one["nodes"]]
    return found


def test_axe_finds_nothing_in_any_panel_in_either_theme(visit):
    page = visit()
    take_playlist(page)
    for name in PANELS:
        place = drawn(page, name)
        for details in place.locator("details > summary").all():
            details.click()
        assert (name, violations(page)) == (name, [])


def test_nor_in_panels_that_have_nothing_to_show_yet(visit):
    page = visit()
    for name in PANELS:
        place = panel(page, name)
        assert place.inner_text().strip()
        assert (name, violations(page)) == (name, [])


def test_everything_can_be_done_with_the_keyboard_alone(visit):
    page = visit()
    press = page.keyboard.press

    def tab_to(locator):
        for _ in range(120):
            if locator.evaluate("element => element === document.activeElement"):
                return
            press("Tab")
        raise AssertionError(f"the tabulator does not lead to {locator}")

    tab_to(page.get_by_label("Add a song"))
    page.keyboard.type("solstice lumden")
    expect(page.get_by_label("Add a song")).to_have_attribute("aria-expanded", "true")
    press("ArrowDown")
    expect(page.get_by_label("Add a song")).to_have_attribute("aria-activedescendant", "found-songs-0")
    press("Enter")
    expect(page.locator("#list .title")).to_have_text("Rose Solstice")
    first = suggested(page)[0]
    tab_to(page.get_by_role("button", name=f"Add {first} to the list", exact=True))
    press("Enter")
    expect(page.locator("#list .title").last).to_have_text(first)
    suggested(page)
    expect(page.locator("#suggestions button").first).to_be_focused()
    page.get_by_role("tab", name="Try it").focus()
    press("ArrowRight")
    expect(page.get_by_role("tab", name="Why")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Why")).to_be_visible()
    press("End")
    expect(page.get_by_role("tabpanel", name="Health")).to_be_visible()
    press("Home")
    expect(page.get_by_role("tabpanel", name="Try it")).to_be_visible()
    tab_to(page.get_by_role("button", name="Remove Rose Solstice", exact=True))
    press("Space")
    expect(page.locator("#list .title")).to_have_text(first)
    expect(page.get_by_role("button", name=f"Remove {first}", exact=True)).to_be_focused()
    press("Enter")
    expect(page.get_by_label("Add a song")).to_be_focused()
    assert listed(page) == []


def test_escape_closes_what_was_found(visit):
    page = visit()
    page.get_by_label("Add a song").fill("the")
    expect(page.locator("#found-songs")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#found-songs")).to_be_hidden()


def test_a_phone_shows_every_panel_without_moving_sideways(visit, picture):
    page = visit(viewport=PHONE, is_mobile=True, has_touch=True, color_scheme="dark")
    take_playlist(page)
    for name in PANELS:
        place = panel(page, name)
        for details in place.locator("details > summary").all():
            details.tap()
        assert (name, page.evaluate("document.documentElement.scrollWidth")) == (name, PHONE["width"])
    page.reload()
    page.wait_for_selector("html[data-ready]")
    panel(page, "Flow")
    picture(page, "phone")


def test_the_theme_follows_the_system_until_one_is_chosen(visit):
    page = visit(color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(colour)
    assert light != dark
    button = page.get_by_role("button", name="Theme")
    button.click()
    button.click()
    expect(button).to_have_text("Theme: dark")
    assert page.evaluate(colour) == dark
    page.reload()
    assert page.evaluate(colour) == dark
    button.click()
    expect(button).to_have_text("Theme: automatic")
    assert page.evaluate(colour) == light


def test_what_changes_is_announced(visit):
    page = visit()
    titles = take_playlist(page)
    expect(page.locator("#announcer")).to_have_text(f"10 suggestions, first {titles[0]}")
