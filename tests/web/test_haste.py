"""Fast fingers, slow networks, other tabs, long names: what the page does where things come in another order than one thinks."""

import json
from contextlib import contextmanager
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from benchmarks.served import address_of
from flask_app import create_app, service_of
from storage.connections import connect
from storage.keys import create_key
from storage.models import deploy
from tests.jobs.world import wait_until
from tests.web.test_access import PHONE
from tests.web.test_page import NO_ANSWER, listed, panel, suggested, take_playlist

FIELD = "Add a song"
WORDS, FOUND = "solstice lumden", "Rose Solstice"
LONG = "Unbroken" * 30


@contextmanager
def held(page, pattern):
    """Requests to some addresses wait until the end."""
    waiting, is_over = [], []

    def hold(route):
        if is_over:
            route.continue_()
        else:
            waiting.append(route)

    page.route(pattern, hold)
    yield waiting
    is_over.append(True)
    for route in waiting:
        route.continue_()


def changed_answers(page, pattern, change):
    """`change` alters what the service answers at some addresses, as JSON."""

    def alter(route):
        response = route.fetch()
        told = response.json()
        change(told)
        route.fulfill(response=response, json=told)

    page.route(pattern, alter)


def reloaded(page):
    page.reload()
    page.wait_for_selector("html[data-ready]")


def press_at_once(field, text, **key):
    """Text and Enter before the page had a moment to look the text up."""
    field.evaluate(
        "(field, [text, key]) => { field.value = text; field.dispatchEvent(new Event('input')); "
        "field.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', cancelable: true, ...key })); }",
        [text, key],
    )


@pytest.fixture
def answers_with(app, world):
    """`answers_with(model_id)` has another one answer, as another tab would; the newer one does again at the end."""

    def switch(model_id):
        with connect(world.url) as connection:
            deploy(connection, model_id)
        wait_until(lambda: service_of(app).live.name == model_id)

    yield switch
    switch(world.newer)


# --- Enter -------------------------------------------------------------------------------------------------------------------


def test_enter_adds_what_is_typed_and_not_what_was_found_before(visit):
    page = visit()
    field = page.get_by_label(FIELD)
    field.fill("the")
    expect(page.locator("#found-songs")).to_be_visible()
    press_at_once(field, WORDS)
    expect(page.locator("#list .title")).to_have_text([FOUND])


def test_enter_twice_adds_one_song(visit):
    page = visit()
    field = page.get_by_label(FIELD)
    field.fill("the")
    expect(page.locator("#found-songs")).to_be_visible()
    press_at_once(field, WORDS)
    field.press("Enter")
    expect(page.locator("#list .title")).to_have_text([FOUND])


def test_enter_in_an_empty_field_takes_no_playlist(visit):
    page = visit()
    titles = (take_playlist(page), listed(page))[1]
    page.get_by_label(FIELD).focus()
    page.get_by_label("Or start from a playlist").focus()
    expect(page.locator("#found-playlists")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#found-playlists")).to_be_visible()
    assert listed(page) == titles
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")  # one that is marked is meant
    expect(page.locator("#found-playlists")).to_be_hidden()


def test_enter_that_ends_a_word_of_an_input_method_adds_nothing(visit):
    page = visit()
    field = page.get_by_label(FIELD)
    field.fill(WORDS)
    expect(page.locator("#found-songs")).to_be_visible()
    press_at_once(field, WORDS, isComposing=True)
    expect(page.locator("#found-songs")).to_be_visible()
    field.press("Enter")
    expect(page.locator("#list .title")).to_have_text([FOUND])


# --- two clicks --------------------------------------------------------------------------------------------------------------


def test_a_double_click_adds_a_suggestion_once(visit):
    page = visit()
    first, n = take_playlist(page)[0], len(listed(page))
    button = page.get_by_role("button", name=f"Add {first} to the list", exact=True)
    with held(page, "**/v1/recommend"):
        button.dblclick()
        button.click()  # once more, slowly: its row is still there
        expect(page.locator("#list .title")).to_have_count(n + 1)
    suggested(page)
    page.locator("#suggestions .add").nth(3).dblclick()
    expect(page.locator("#list .title")).to_have_count(n + 2)
    suggested(page)
    assert len(listed(page)) == n + 2


def test_a_double_click_goes_back_by_one_model(visit, world, answers_with):
    answers_with(world.older)
    page = visit()
    place = panel(page, "Model card")
    sent = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    button = place.get_by_role("button", name="Roll back")
    button.focus()
    button.evaluate("button => { button.click(); button.click(); }")
    expect(place.locator("#model-said")).to_have_text(f"{world.newer} answers now.")
    assert [url.rpartition("/")[2] for url in sent if "/models/" in url] == ["rollback"]
    expect(button).to_be_focused()
    expect(place.locator("[aria-disabled]")).to_have_count(0)


def test_a_switch_ends_with_what_was_chosen_last(visit, world, answers_with):
    page = visit()
    place = panel(page, "Model card")

    def chosen_elsewhere(route):
        response = route.fetch()
        with connect(world.url) as connection:
            deploy(connection, world.newer)
        route.fulfill(response=response)

    page.route("**/activate", chosen_elsewhere)
    place.get_by_role("button", name=f"Answer with {world.older}").click()
    expect(place.locator("#model-said")).to_have_text(f"{world.newer} answers now.")


# --- answers that come late, or not at all -----------------------------------------------------------------------------------


def test_a_playlist_that_comes_late_does_not_take_the_place_of_a_song_that_was_added(visit):
    page = visit()
    with held(page, "**/v1/playlists/*") as waiting:
        page.get_by_label("Or start from a playlist").fill("Synth-pop 2021")
        page.get_by_role("option", name="Synth-pop 2021").click()
        page.get_by_label(FIELD).fill(WORDS)
        page.get_by_label(FIELD).press("Enter")
        expect(page.locator("#list .title")).to_have_text([FOUND])
        assert len(waiting) == 1
    expect(page.locator("#list-note")).to_contain_text("The list was changed meanwhile, so Synth-pop 2021 was not taken.")
    assert listed(page) == [FOUND]


def test_of_two_playlists_the_one_that_was_picked_last_is_taken(visit):
    page = visit()
    names = page.locator("#suggestions .empty").get_by_role("button")
    expect(names).to_have_count(3)
    with held(page, "**/v1/playlists/*") as waiting:
        names.nth(0).click()
        names.nth(1).click()
        wanted = names.nth(1).inner_text()
        expect(page.locator("#list-note")).to_contain_text(f"Reading {wanted}")
        waiting.reverse()
    expect(page.locator("#list .strong").first).to_have_text(wanted)
    suggested(page)
    expect(page.locator("#list-note")).to_contain_text(f"from {wanted}")


def test_a_list_whose_songs_cannot_be_looked_up_is_kept_by_its_ids(visit):
    page = visit(refused=(503,))
    titles = (take_playlist(page), listed(page))[1]
    page.route("**/v1/songs/lookup", lambda route: route.fulfill(status=503, json={"detail": "no model is loaded"}))
    reloaded(page)
    told = page.locator("#list-problem").get_by_role("alert")
    expect(told).to_contain_text("Not available at the moment")
    assert len(listed(page)) == len(titles)
    page.get_by_label(FIELD).fill(WORDS)
    page.get_by_label(FIELD).press("Enter")
    expect(page.locator("#list .title").last).to_have_text(FOUND)
    page.unroute("**/v1/songs/lookup")
    told.get_by_role("button", name="Try again").click()
    expect(page.locator("#list .title")).to_have_text([*titles, FOUND])
    expect(told).to_have_count(0)


def test_a_song_that_is_added_while_the_list_is_looked_up_joins_it(visit):
    page = visit()
    titles = (take_playlist(page), listed(page))[1]
    with held(page, "**/v1/songs/lookup"):
        with page.expect_request("**/v1/songs/lookup"):
            page.reload(wait_until="commit")
        page.get_by_label(FIELD).fill(WORDS)
        page.get_by_label(FIELD).press("Enter")
        expect(page.locator("#list .title").last).to_have_text(FOUND)
    expect(page.locator("#list .title")).to_have_text([*titles, FOUND])
    suggested(page)


def test_an_answer_that_is_cut_off_is_told(visit):
    page = visit()
    page.route("**/v1/recommend", lambda route: route.fulfill(status=200, content_type="application/json", body='{"songs": ['))
    page.locator("#suggestions .empty").get_by_role("button").first.click()
    told = page.locator("#suggestions").get_by_role("alert")
    expect(told).to_contain_text("No answer from the service")
    page.unroute("**/v1/recommend")
    told.get_by_role("button", name="Try again").click()
    assert len(suggested(page)) == 10


def test_an_answer_that_stays_away_is_given_up(visit):
    page = visit()
    page.clock.install()
    with held(page, "**/v1/recommend") as waiting:
        with page.expect_request("**/v1/recommend"):
            page.locator("#suggestions .empty").get_by_role("button").first.click()
        page.clock.fast_forward(61_000)
        expect(page.locator("#suggestions").get_by_role("alert")).to_contain_text("No answer from the service")
        waiting.clear()


def test_a_panel_that_cannot_be_loaded_says_so_and_comes_later(visit):
    page = visit(refused=NO_ANSWER)
    page.context.set_offline(True)
    page.get_by_role("tab", name="Popularity").click()
    told = page.get_by_role("tabpanel", name="Popularity").get_by_role("alert")
    expect(told).to_contain_text("No answer from the service")
    page.context.set_offline(False)
    told.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("region", name="Share of songs")).to_be_visible()


@pytest.fixture
def locked(app, world):
    """(address, text of a key) of a service that asks for keys."""
    config = replace(world.config, service=replace(world.config.service, require_key="always"))
    with connect(world.url) as connection:
        key = create_key(connection, "a page in haste")
    closed = create_app(config, recommender=service_of(app).live.recommender, database_url=world.url)
    with address_of(closed) as address:
        yield address, key.text


def test_a_late_word_against_an_old_key_leaves_the_new_one(visit, locked):
    address, key = locked
    page = visit(at=address, refused=(401,))
    old = "b4mr_0123456789ab_" + "0" * 64
    waiting = []

    def hold_old(route):
        if route.request.headers.get("authorization") == f"Bearer {old}":
            waiting.append(route)
        else:
            route.continue_()

    page.route("**/v1/overview", hold_old)
    for text in (old, key):
        page.get_by_label("API key", exact=True).fill(text)
        page.get_by_role("button", name="Use this key").click()
    form = page.get_by_role("form", name="This service needs an API key")
    expect(form).to_be_hidden()
    with page.expect_response(lambda response: response.status == 401):
        waiting[0].continue_()
    assert len(take_playlist(page)) == 10
    expect(form).to_be_hidden()
    assert page.evaluate("sessionStorage.getItem('api key')") == key


# --- another tab -------------------------------------------------------------------------------------------------------------


def test_why_is_told_of_the_model_that_suggests(visit, world, answers_with):
    page = visit()
    before = take_playlist(page)
    answers_with(world.older)
    place = panel(page, "Why")
    expect(page.locator("#in-service")).to_contain_text(world.older.rpartition("/")[2])
    expect(place.get_by_role("region", name="Change of the score")).to_be_visible()
    chosen = place.get_by_label("Suggestion", exact=True).input_value()
    panel(page, "Try it")
    now = suggested(page)
    assert now != before
    assert chosen.partition(". ")[2] in now


def test_the_map_is_that_of_the_model_that_places_the_songs(visit, world, answers_with):
    page = visit()
    take_playlist(page)
    expect(panel(page, "Map").locator("path.dots")).to_be_visible()
    panel(page, "Try it")

    def switched_meanwhile(route):
        answers_with(world.older)  # which has no map
        route.continue_()

    page.route("**/v1/map/places", switched_meanwhile)
    expect(panel(page, "Map")).to_contain_text("There is no map of this model")


# --- coming back -------------------------------------------------------------------------------------------------------------


def test_going_back_to_the_page_begins_with_the_defaults(visit, address):
    page = visit(refused=(404,))  # the browser looks for the icon of what is no page
    page.get_by_text("Controls", exact=True).click()
    page.get_by_label("How many songs").fill("5")
    page.get_by_label("Order").select_option("flow")
    page.goto(f"{address}/openapi/openapi.json")
    page.go_back()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#count")).to_have_value("10")
    expect(page.locator("#changed")).to_have_text("")


def test_what_a_browser_put_into_a_control_counts_as_changed(visit):
    page = visit()
    page.add_init_script(
        "new MutationObserver(() => { const field = document.getElementById('count'); if (field) field.value = '5'; })"
        ".observe(document, { childList: true, subtree: true })"
    )
    reloaded(page)
    expect(page.locator("#changed")).to_have_text("1 changed")


def test_the_focus_stays_with_what_was_pressed_or_goes_to_what_took_its_place(visit, world):
    page = visit(refused=(503,))
    page.locator("#suggestions .empty").get_by_role("button").first.press("Enter")
    expect(page.locator("#list ol")).to_be_focused()
    suggested(page)
    page.route("**/v1/recommend", lambda route: route.fulfill(status=503, json={"detail": "away"}))
    page.locator("#list li button").first.click()
    again = page.locator("#suggestions").get_by_role("button", name="Try again")
    page.unroute("**/v1/recommend")
    again.press("Enter")
    suggested(page)
    assert page.evaluate("document.activeElement !== document.body")
    place = panel(page, "Model card")
    button = place.get_by_role("button", name=world.older, exact=True)
    button.press("Enter")
    expect(place.get_by_role("heading", name="A model that does not answer now")).to_be_visible()
    expect(button).to_be_focused()


# --- names and numbers -------------------------------------------------------------------------------------------------------


def test_names_without_a_space_do_not_move_a_phone_sideways(visit):
    page = visit(viewport=PHONE, is_mobile=True, has_touch=True)

    def lengthen(told):
        for song in told["songs"]:
            song.update(title=f"{song['song_id']}{LONG}", artist=LONG, album=LONG)

    for pattern in ("**/v1/playlists/*", "**/v1/songs/lookup"):
        changed_answers(page, pattern, lengthen)
    take_playlist(page)
    page.locator("#list li button").first.click()  # which says its title
    for name in ("Try it", "Why", "Flow", "Map"):
        panel(page, name)
        assert (name, page.evaluate("document.documentElement.scrollWidth")) == (name, PHONE["width"])


@pytest.mark.parametrize(("name", "saved"), [("😀" * 300, "😀"), ("  ", "My list")])
def test_a_list_of_any_name_can_be_taken_away(visit, name, saved):
    page = visit()
    changed_answers(page, "**/v1/playlists/*", lambda told: told.update(name=name))
    page.locator("#suggestions .empty").get_by_role("button").first.click()
    suggested(page)
    for what in ("list", "suggestions"):
        with page.expect_download() as downloading:
            page.locator(f'[data-export="{what}.json"]').click()
        assert downloading.value.suggested_filename.startswith(saved)


def test_taking_suggestions_away_counts_as_no_answer(visit, address):
    page = visit()
    titles = take_playlist(page)

    def counted():
        figures = page.request.get(f"{address}/v1/figures/popularity").json()
        answers = page.request.get(f"{address}/v1/overview").json()["fallback"]["answers"]
        return answers, figures["n_recommended"]

    before = counted()
    with page.expect_download() as downloading:
        page.locator('[data-export="suggestions.json"]').click()
    exported = json.loads(downloading.value.path().read_text(encoding="utf-8"))
    assert [song["title"] for song in exported["songs"]] == titles
    assert exported["model"] is not None
    assert all(song["reasons"] and song["score"] is not None for song in exported["songs"])
    assert counted() == before


def test_never_is_stored_also_where_the_model_was_never_entered(visit):
    page = visit(refused=(404,))
    unwanted = take_playlist(page)[0]
    sent = []

    def unknown_model(route):
        [event] = route.request.post_data_json["events"]
        sent.append(event)
        if "model_id" in event:
            route.fulfill(status=404, json={"detail": "feedback names a model that is not known here"})
        else:
            route.continue_()

    page.route("**/v1/feedback", unknown_model)
    page.get_by_text("Controls", exact=True).click()
    page.get_by_label("Listener").fill("carla")
    page.keyboard.press("Tab")
    page.get_by_role("button", name=f"Never again {unwanted}", exact=True).click()
    expect(page.locator("#answer-said")).to_have_text(f"{unwanted} will not be suggested to carla again.")
    assert [event["recommended"] for event in sent] == [True, True]


def test_a_service_that_takes_few_songs_at_once_is_asked_in_parts(visit, app, world):
    config = replace(world.config, service=replace(world.config.service, max_songs=15))
    small = create_app(config, recommender=service_of(app).live.recommender, database_url=world.url)
    with address_of(small) as address:
        page = visit(at=address)
        take_playlist(page)
        n = len(listed(page))
        assert n + 10 > 15
        place = panel(page, "Map")
        expect(place.locator("path.theirs.ringed")).to_have_count(10)
        expect(place.locator("circle.mine.ringed")).to_have_count(n)


def test_moving_one_slider_says_nothing_of_the_other(visit):
    page = visit()
    page.get_by_text("Controls", exact=True).click()
    page.evaluate(
        "() => { window.written = []; for (const output of document.querySelectorAll('output')) "
        "new MutationObserver(() => written.push(output.htmlFor.value)).observe(output, { childList: true }); }"
    )
    page.get_by_label("Discovery").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("output[for=discovery]")).to_have_text("0.55")
    assert page.evaluate("written") == ["discovery"]
    assert page.locator("output:not([aria-live=off])").count() == 0


def test_a_training_of_many_epochs_is_told_as_long_as_it_was(visit):
    page = visit()
    point = {"seconds": 1.0, "train_loss": 1.0, "ndcg10": 0.1, "hr10": 0.2}
    curve = [{"epoch": epoch, **point} for epoch in range(4, 2_001, 4)]
    changed_answers(page, "**/card", lambda told: told.update(curve=curve))
    expect(panel(page, "Model card")).to_contain_text("2,000 epochs, 500 of them drawn")
