"""What a person does on the page: search, build a list, ask, add, refuse, take away, look why, switch models."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect

from benchmarks.served import address_of
from flask_app import create_app, service_of
from storage.connections import connect
from storage.keys import create_key
from tests.web.world import HOSTILE, PLAYLIST, away

NO_ANSWER = ("net::ERR",)  # in place of a status


# --- what the tests do with the page -----------------------------------------------------------------------------------------


def suggested(page):
    """The titles of the suggestions, once they are those of the list as it stands."""
    expect(page.locator("#suggestions .song").first).to_be_visible()
    expect(page.locator("#suggestions")).not_to_have_attribute("aria-busy", "true")
    return page.locator("#suggestions .title").all_text_contents()


def listed(page):
    return page.locator("#list .title").all_text_contents()


def take_playlist(page, name=PLAYLIST):
    page.get_by_label("Or start from a playlist").fill(name)
    page.get_by_role("option", name=name).click()
    expect(page.locator("#list .strong").first).to_have_text(name)
    return suggested(page)


def panel(page, name):
    page.get_by_role("tab", name=name, exact=True).click()
    place = page.get_by_role("tabpanel", name=name, exact=True)
    expect(place).to_be_visible()
    expect(place.locator(".songs, .content > *, .empty").first).to_be_attached()
    expect(place.locator("[aria-busy=true]")).to_have_count(0)
    return place


DRAWN = {
    "Why": "svg.bar",
    "Flow": ".plot svg",
    "Model card": ".plot svg",
    "Popularity": "svg.bar",
    "Map": "path.dots",
    "Health": ".card .facts",
}


def drawn(page, name):
    """A panel with what it is there for, and no word of something that went wrong."""
    place = panel(page, name)
    expect(place.locator(DRAWN.get(name, ".songs")).first).to_be_visible()
    expect(place.locator(".problem")).to_have_count(0)
    return place


# --- a list and its suggestions ----------------------------------------------------------------------------------------------


def test_before_there_is_a_list_the_page_says_how_to_begin(visit):
    page = visit()
    start = page.locator("#suggestions .empty")
    expect(start).to_contain_text("Nothing to continue yet")
    start.get_by_role("button").first.click()
    assert len(suggested(page)) == 10


def test_a_searched_song_is_continued_by_ten_with_what_is_known_of_them(visit):
    page = visit()
    page.get_by_label("Add a song").press_sequentially("solstice lumden")
    page.get_by_role("option", name="Rose Solstice Lumden Tunnel").click()
    assert len(suggested(page)) == 10
    assert listed(page) == ["Rose Solstice"]
    first = page.locator("#suggestions .song").first
    assert re.search(r"\d+ BPM|no tempo", first.inner_text())
    assert re.search(r"(major|minor) \d+[AB]|no key", first.inner_text())
    assert first.locator(".reasons li").count() >= 1


def test_words_that_no_song_has_are_told(visit):
    page = visit()
    page.get_by_label("Add a song").fill("xyzzy plugh")
    expect(page.locator(".combobox").first).to_contain_text("No song has all of these words")


def test_an_added_suggestion_joins_the_list_and_others_follow(visit, picture):
    page = visit()
    before = take_playlist(page)
    picture(page, "try")
    page.get_by_role("button", name=f"Add {before[2]} to the list", exact=True).click()
    expect(page.locator("#list .title").last).to_have_text(before[2])
    expect(page.get_by_role("button", name=f"Add {before[2]} to the list", exact=True)).to_have_count(0)
    assert before[2] not in suggested(page)


def test_a_removed_song_can_be_brought_back(visit):
    page = visit()
    take_playlist(page)
    before = listed(page)
    page.get_by_role("button", name=f"Remove {before[0]}", exact=True).click()
    expect(page.locator("#list .title").first).to_have_text(before[1])
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#list .title").first).to_have_text(before[0])
    assert listed(page) == before
    page.get_by_role("button", name="Clear the list").click()
    expect(page.locator("#suggestions .empty")).to_contain_text("Nothing to continue yet")


def test_the_list_survives_that_the_page_is_loaded_anew(visit):
    page = visit()
    before = take_playlist(page)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert suggested(page) == before


def test_never_is_remembered_for_the_listener_who_is_named(visit, world):
    page = visit()
    before = take_playlist(page)
    page.get_by_role("button", name=f"Never again {before[0]}", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("name a listener here")
    expect(page.get_by_label("Listener")).to_be_focused()
    page.keyboard.type("anna")
    page.keyboard.press("Tab")
    page.get_by_role("button", name=f"Never again {before[0]}", exact=True).click()
    expect(page.locator("#answer-said")).to_have_text(f"{before[0]} will not be suggested to anna again.")
    expect(page.locator("#suggestions .title").first).not_to_have_text(before[0])
    assert before[0] not in suggested(page)
    with connect(world.url) as connection:
        stored = connection.execute(
            "SELECT event::text, model_id, is_recommended FROM recommender.feedback WHERE listener = 'anna'"
        ).fetchall()
    assert stored == [("never_again", world.newer, True)]


def test_controls_that_were_changed_are_sent_and_the_rest_is_not(visit):
    page = visit()
    take_playlist(page)
    page.get_by_text("Controls", exact=True).click()
    with page.expect_request("**/v1/recommend") as asked:
        page.get_by_label("How many songs").fill("5")
        page.get_by_label("How many songs").press("Tab")
    assert {name: value for name, value in asked.value.post_data_json.items() if name != "songs"} == {"count": 5, "explain": True}
    expect(page.locator("#suggestions .song")).to_have_count(5)
    page.get_by_role("group", name="Tempo").get_by_label("from").fill("120")
    with page.expect_request("**/v1/recommend") as asked:
        page.get_by_label("Order").select_option("by tempo and key (flow)")
    assert asked.value.post_data_json["ranges"] == {"tempo": {"min": 120}}
    assert asked.value.post_data_json["order"] == "flow"
    expect(page.locator("#changed")).to_have_text("3 changed")
    page.get_by_label("Discovery").focus()
    with page.expect_request("**/v1/recommend") as asked:
        page.keyboard.press("ArrowRight")
    assert asked.value.post_data_json["discovery"] == 0.55
    page.get_by_role("button", name="Back to the defaults").click()
    expect(page.locator("#suggestions .song")).to_have_count(10)


def test_chance_names_the_seed_that_draws_the_same_songs_again(visit):
    page = visit()
    take_playlist(page)
    page.get_by_text("Controls", exact=True).click()
    page.get_by_label("Chance", exact=True).fill("1")
    note = page.locator("#suggestions .notes")
    expect(note).to_contain_text("Drawn with seed")
    seed, drawn = re.search(r"seed (\d+)", note.inner_text())[1], suggested(page)
    with page.expect_response("**/v1/recommend"):
        page.get_by_label("Seed of the chance").fill(seed)
        page.keyboard.press("Tab")
    assert suggested(page) == drawn


def test_the_request_is_shown_as_curl_and_as_sql_and_can_be_copied(visit, address, world):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    take_playlist(page)
    page.get_by_text("The same request as curl and as SQL").click()
    page.get_by_role("button", name="Copy the curl").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    curl = page.evaluate("navigator.clipboard.readText()")
    assert curl.startswith(f"curl -s '{address}/v1/recommend'")
    assert len(json.loads(curl.partition(" -d '")[2].rstrip("'"))["songs"]) == len(listed(page))
    sql = page.locator("#request pre").last.inner_text()
    with connect(world.url) as connection:
        statement = sql.partition(" AS request_id")[0]
        [(request_id,)] = connection.execute(statement.replace("%", "%%")).fetchall()
    assert request_id > 0


# --- taking away -------------------------------------------------------------------------------------------------------------


def titles_in(ending, text):
    match ending:
        case "jspf":
            return [track["title"] for track in json.loads(text)["playlist"]["track"]]
        case "m3u8":
            return [line.partition(" - ")[2] for line in text.splitlines() if line.startswith("#EXTINF:")]
        case "csv":
            return [row["Track Name"] for row in csv.DictReader(io.StringIO(text))]
        case "json":
            return re.findall(r'"title": ?"((?:[^"\\]|\\.)*)"', text)
        case _:
            return text


@pytest.mark.parametrize("what", ["suggestions", "list"])
def test_suggestions_and_list_can_be_taken_away_as_files(visit, what):
    page = visit()
    take_playlist(page)
    titles = suggested(page) if what == "suggestions" else listed(page)
    for ending in ("jspf", "m3u8", "csv", "json", "sql"):
        with page.expect_download() as downloading:
            page.locator(f'[data-export="{what}.{ending}"]').click()
        assert downloading.value.suggested_filename.endswith(f".{ending}")
        text = Path(downloading.value.path()).read_text(encoding="utf-8")
        found = titles_in(ending, text)
        if ending == "sql":
            assert "INSERT" in found
        else:
            assert found == titles, ending
        expect(page.locator(f"#{what} .exports .said")).to_contain_text(f"Saved {downloading.value.suggested_filename}")


# --- the other panels --------------------------------------------------------------------------------------------------------


def test_why_has_a_bar_for_each_song_of_the_list(visit, world, picture):
    page = visit()
    titles = take_playlist(page)
    page.get_by_role("button", name=f"Why {titles[1]}?", exact=True).click()
    place = page.get_by_role("tabpanel", name="Why", exact=True)
    expect(place.get_by_label("Suggestion", exact=True)).to_have_value(f"2. {titles[1]}")
    rows = place.get_by_role("region", name="Change of the score").locator("tbody tr")
    expect(rows).to_have_count(len(listed(page)))
    told = [row.locator("td").first.inner_text() for row in rows.all()]
    assert sum(points != "not read" for points in told) == min(len(told), world.config.model.seq_len - 1)
    assert rows.locator("svg.bar").count() == sum(points not in ("not read", "0.00") for points in told) > 2
    expect(place.get_by_role("region", name="Features of the suggestion")).to_contain_text("tempo")
    picture(page, "why")
    place.get_by_label("Suggestion", exact=True).select_option(index=4)
    expect(place.get_by_label("Suggestion", exact=True)).to_have_value(f"5. {titles[4]}")


def test_flow_draws_the_list_and_the_suggestions_and_has_them_as_a_table(visit, picture):
    page = visit()
    take_playlist(page)
    n = len(listed(page)) + 10
    place = panel(page, "Flow")
    expect(place.get_by_role("img")).to_have_accessible_name(re.compile("Tempo, energy and key. Tempo from .* changes? of key"))
    assert place.locator("circle.mine").count() > 4
    assert place.locator("circle.theirs").count() > 10
    picture(page, "flow")
    place.get_by_text("The numbers as a table").click()
    expect(place.locator("tbody tr")).to_have_count(n)


def test_the_model_card_sets_the_model_beside_simple_methods(visit, world, picture):
    page = visit()
    place = panel(page, "Model card")
    expect(place.get_by_text(world.newer).last).to_be_visible()
    table = place.get_by_role("region", name="The model beside simple methods")
    expect(table).to_contain_text("BERT4Rec")
    expect(table).to_contain_text("popularity")
    assert place.get_by_role("img").count() == 2
    models = place.get_by_role("region", name="Models that the database knows")
    assert [cell.inner_text() for cell in models.get_by_role("columnheader").all()] == [
        "Model", "Trained", "Answers", "Played", "Skipped", "Never", "State",
    ]  # fmt: skip
    picture(page, "model")


def test_a_model_is_switched_and_rolled_back(visit, world):
    page = visit()
    before = take_playlist(page)
    place = panel(page, "Model card")
    place.get_by_role("button", name=f"Answer with {world.older}").click()
    expect(place.locator("#model-said")).to_have_text(f"{world.older} answers now.")
    expect(page.locator("#in-service")).to_contain_text(world.older.rpartition("/")[2])
    expect(place.get_by_role("row").filter(has_text=world.older)).to_contain_text("answers now")
    panel(page, "Try it")
    assert suggested(page) != before
    place = panel(page, "Model card")
    place.get_by_role("button", name="Roll back").click()
    expect(place.locator("#model-said")).to_have_text(f"{world.newer} answers now.")
    panel(page, "Try it")
    assert suggested(page) == before


def test_popularity_compares_suggestions_with_history_and_catalogue(visit, picture):
    page = visit()
    take_playlist(page)
    place = panel(page, "Popularity")
    table = place.get_by_role("region", name="Share of songs")
    for column in ("Catalogue", "History", "Suggested"):
        expect(table.get_by_role("columnheader", name=column, exact=True)).to_be_visible()
    assert table.locator("tbody th").first.inner_text() == "in no training list"
    rows = [row.locator("td.number").all_inner_texts() for row in table.locator("tbody tr").all()]
    for column in zip(*rows, strict=True):
        assert sum(float(share.removesuffix(" %")) for share in column) == pytest.approx(100, abs=0.5)
    expect(place).to_contain_text("suggested songs are counted, since")
    assert place.get_by_role("region", name="Shares of artists").locator("tbody tr").count() >= 10
    picture(page, "popularity")


def test_the_map_marks_the_list_and_the_suggestions_and_says_what_axes_mean(visit, app, picture):
    page = visit()
    take_playlist(page)
    place = panel(page, "Map")
    expect(place).to_contain_text("the axes have no meaning")
    n_songs = service_of(app).live.state()["songs"]
    expect(place).to_contain_text(f"A sample of 600 of {n_songs:,} songs")
    expect(place.locator("path.theirs.ringed")).to_have_count(10)
    expect(place.locator("circle.mine.ringed")).to_have_count(len(listed(page)))
    picture(page, "map")


def test_health_names_the_database_the_model_and_the_last_errors(visit, world, address, picture):
    page = visit()
    take_playlist(page)
    page.request.post(f"{address}/v1/recommend", data={"songs": []})
    place = panel(page, "Health")
    expect(place.locator(".card").filter(has_text="Database")).to_contain_text("reachable")
    expect(place).to_contain_text(world.newer)
    error = place.get_by_role("region", name="Last errors").get_by_role("row").filter(has_text="the sequence is empty")
    expect(error).to_contain_text("correct the request")
    expect(place.get_by_role("region", name="Rights").locator("tbody tr")).to_have_count(4)
    expect(place.get_by_role("img")).to_have_accessible_name(re.compile("Time until an answer. Half of .* answers? within"))
    learned = place.locator(".facts div").filter(has_text="Lists that the model learned from").locator("dd")
    origin = json.loads((world.config.training.model_folder / world.newer.partition("/")[0] / "origin.json").read_text())
    assert int(learned.inner_text()) == origin["data"]["sequences_training"] < origin["data"]["sequences"]
    picture(page, "health")


# --- what goes wrong ---------------------------------------------------------------------------------------------------------


def test_without_the_database_lists_are_continued_and_the_rest_says_what_is_missing(visit, world, server_url):
    page = visit(refused=(503,))
    take_playlist(page)
    with away(world.url, server_url):
        titles = suggested(page)
        page.get_by_role("button", name=f"Add {titles[0]} to the list", exact=True).click()
        expect(page.locator("#list .title").last).to_have_text(titles[0])
        assert titles[0] not in suggested(page)
        page.get_by_label("Or start from a playlist").fill("x")
        expect(page.locator(".combobox .note").last).to_contain_text("Not available at the moment")
        page.get_by_text("Controls", exact=True).click()
        page.get_by_label("Listener").fill("berta")
        page.keyboard.press("Tab")
        unwanted = suggested(page)[0]
        page.get_by_role("button", name=f"Never again {unwanted}", exact=True).click()
        expect(page.locator("#answer-said")).to_contain_text("Until this page is closed")
        expect(page.get_by_role("button", name=f"Never again {unwanted}", exact=True)).to_have_count(0)
        place = panel(page, "Health")
        expect(place).to_contain_text("Lists of songs are still answered")
        expect(page.locator("#in-service")).to_contain_text("The database is away")
        place = panel(page, "Model card")
        expect(place.get_by_role("alert").first).to_contain_text("Not available at the moment")
        for name in ("Why", "Flow", "Popularity", "Map"):
            drawn(page, name)
    place = panel(page, "Health")
    expect(place.locator(".chip.good").first).to_have_text("reachable")  # it looks again by itself
    expect(page.locator("#in-service")).not_to_contain_text("The database is away")
    place = panel(page, "Model card")
    expect(place.get_by_role("region", name="Models")).to_be_visible()


def test_a_service_without_a_database_continues_lists_and_says_what_it_lacks(visit, app, world):
    bare = create_app(world.config, recommender=service_of(app).live.recommender)
    with address_of(bare) as address:
        page = visit(at=address)
        expect(page.locator("#suggestions .empty")).to_be_visible()
        page.get_by_label("Add a song").fill("solstice lumden")
        page.get_by_label("Add a song").press("Enter")  # before anything was found
        assert len(suggested(page)) == 10
        assert listed(page) == ["Rose Solstice"]
        expect(panel(page, "Health")).to_contain_text("start the service with DATABASE_URL")


@pytest.fixture
def locked(app, world):
    """(address, text of a key) of a service that asks for keys."""
    config = replace(world.config, service=replace(world.config.service, require_key="always"))
    with connect(world.url) as connection:
        key = create_key(connection, "a page")
    closed = create_app(config, recommender=service_of(app).live.recommender, database_url=world.url)
    with address_of(closed) as address:
        yield address, key.text


def test_a_key_is_asked_for_refused_and_taken(visit, locked):
    address, key = locked
    page = visit(at=address, refused=(401, 403))
    form = page.get_by_role("form", name="This service needs an API key")
    expect(form).to_be_visible()
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    page.keyboard.type("b4mr_0123456789ab_" + "0" * 64)
    page.keyboard.press("Enter")
    expect(form).to_contain_text("The key was not taken: the API key is unknown, expired or revoked")
    page.get_by_label("API key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()
    expect(form).to_be_hidden()
    assert len(take_playlist(page)) == 10
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert len(suggested(page)) == 10
    place = panel(page, "Model card")
    place.get_by_role("button", name="Roll back").click()
    expect(place.locator("#model-said")).to_contain_text("This key may not do that")


def test_a_service_that_does_not_answer_is_told_with_the_way_out(visit):
    page = visit(refused=NO_ANSWER)
    titles = take_playlist(page)
    page.context.set_offline(True)
    page.get_by_role("button", name=f"Add {titles[0]} to the list", exact=True).click()
    told = page.locator("#suggestions").get_by_role("alert")
    expect(told).to_contain_text("No answer from the service")
    page.context.set_offline(False)
    told.get_by_role("button", name="Try again").click()
    assert len(suggested(page)) == 10


def test_names_that_are_markup_stay_words(visit, world):
    page = visit()
    page.get_by_label("Add a song").fill("onerror taken")
    page.locator("#found-songs").get_by_role("option").first.click()
    assert listed(page) == [HOSTILE]
    suggested(page)
    with page.expect_download():
        page.locator('[data-export="list.m3u8"]').click()
    expect(page.locator("#list .exports .said")).to_contain_text("1 of 1 songs are left out")
    page.get_by_label("Or start from a playlist").fill("onerror")
    page.locator("#found-playlists").get_by_role("option").filter(has_text=HOSTILE).click()
    expect(page.locator("#list .strong").first).to_have_text(HOSTILE)
    for name in ("Flow", "Map", "Popularity", "Model card"):
        drawn(page, name)
    panel(page, "Why")
    assert page.title() == "BERT4MusicRec"
    assert page.locator("main :is(img, script)").count() == 0
