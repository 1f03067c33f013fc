"""demo/app.py, driven as people do: in a real browser."""
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.broken_videos import break_video
from tests.browser import EVIL, chromium, click_search
from tests.tools import run_tool
from tests.videos import encode_video, read_index
from vop_mm.apis import VideoSearcher


@pytest.fixture(scope='module')
def searcher(folder):
    """What the page has to agree with."""
    searcher = VideoSearcher(folder / 'vop_f_p.py',
                                   {'vop_f_p': folder / 'vop_f_p.pth', 'vop': folder / 'vop.pth'})
    yield searcher
    # their children, forked beside the browser's driver, have its pipe, and it waits for that to be closed
    for name in searcher.prompts:
        searcher.prompt_set(name).loader.close()


@pytest.fixture(scope='module')
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope='module')
def page(browser, server):
    """The page, opened once; ``page.asked`` are the addresses that it asked for, ``page.wrong`` what went wrong."""
    page = browser.new_page(viewport=dict(width=1280, height=900))
    page.set_default_timeout(30_000)
    page.asked, page.wrong = [], []
    page.on('request', lambda request: page.asked.append(request.url))
    page.on('pageerror', lambda error: page.wrong.append(str(error)))
    page.on('console', lambda line: line.type == 'error' and page.wrong.append(line.text))
    page.goto(server.url)
    page.wait_for_selector('#vop-summary .vop-summary')
    return page


def search(page, query, prompts='VoP^F+P'):
    """Type, click, wait for what comes; names and scores that are shown."""
    page.get_by_role('tab', name='Search').click()
    page.fill('#vop-query textarea', query)
    click_search(page)
    wait_for_text(page, '#vop-results .vop-asked', f'“{query}”, {prompts}')
    return shown(page, '#vop-results')


def wait_for_text(page, place, text):
    from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
    try:
        page.locator(place).filter(has_text=text).first.wait_for()
    except PlaywrightTimeoutError:
        raise AssertionError(f'no {text!r} in {place}, but: {page.locator("body").inner_text()!r}') from None


def shown(page, place):
    return list(zip(page.locator(f'{place} .vop-name').all_inner_texts(),
                    map(float, page.locator(f'{place} .vop-card .vop-score').all_inner_texts())))


def upload(page, path):
    page.get_by_role('tab', name='Upload').click()
    page.set_input_files('#vop-drop input', path)
    page.wait_for_selector('#vop-neighbors :is(.vop-cards, .vop-message)')


def agrees(found, hits):
    """Whether the page shows what was found: names in order, but for scores that look the same, and scores."""
    expected = [(os.path.basename(hit.path), hit.score) for hit in hits]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1.1e-3)
    assert {name for name, _ in found} == {name for name, _ in expected}
    return True


# -- in the browser ---------------------------------------------------------------------------------------------------
def test_a_query_finds_what_the_retriever_finds(page, folder, searcher, small_demo):
    query = 'a red triangle becomes blue'
    hits = searcher.search(query, folder / 'vop_f_p', 8, prompts='vop_f_p')
    assert agrees(search(page, query), hits)
    captions = {e['video']: e['captions'] for e in json.loads((small_demo / 'test.json').read_text())['data_list']}
    cards = page.locator('#vop-results .vop-card').all()
    known = 0
    for card in cards:
        name = card.locator('.vop-name').inner_text()
        known += name in captions
        assert card.locator('.vop-caption').all_inner_texts() == captions.get(name, [])[:1]
    assert len(cards) == 8 and known >= 4
    done = run_tool('tools/search.py', folder / 'vop_f_p', query, '-k', '8', '--json')
    assert [hit['path'] for hit in json.loads(done.stdout)] == [hit.path for hit in hits]


def test_other_prompts_search_their_own_index(page, folder, searcher):
    query = 'a yellow ring grows'
    search(page, query)
    page.get_by_label('plain').check()
    wait_for_text(page, '#vop-results .vop-asked', f'“{query}”, plain')
    assert agrees(shown(page, '#vop-results'), searcher.search(query, folder / 'vop', 8, prompts='vop'))
    page.get_by_role('tab', name='Index').click()
    wait_for_text(page, '#vop-index', 'VoP, fingerprint')
    page.get_by_label('VoP^F+P').check()
    wait_for_text(page, '#vop-index', 'VoP^F+P, fingerprint')


def test_an_example_is_searched(page, folder, searcher):
    page.get_by_role('tab', name='Search').click()
    example = page.locator('#vop-examples button').nth(1)
    text = example.inner_text().strip()
    example.click()
    wait_for_text(page, '#vop-results .vop-asked', f'“{text}”, VoP^F+P')
    assert page.input_value('#vop-query textarea') == text
    assert agrees(shown(page, '#vop-results'), searcher.search(text, folder / 'vop_f_p', 8, prompts='vop_f_p'))


def test_a_moment_plays_from_its_start_to_its_end(page):
    page.get_by_role('tab', name='Search').click()
    page.get_by_label('All moments').check()
    page.locator('#vop-count input[type=number]').fill('48')
    search(page, 'a white square')
    video = page.locator('.vop-card', has_text='long.mp4').filter(has_text='0:02-0:06').locator('video')
    video.scroll_into_view_if_needed()
    page.wait_for_function('v => v.readyState >= 2', arg=video.element_handle())
    video.click()  # on the picture: it plays
    page.wait_for_function('v => !v.paused && v.currentTime > 2.3', arg=video.element_handle())
    pixels = video.evaluate("""v => {
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [v.videoWidth, v.videoHeight];
        canvas.getContext('2d').drawImage(v, 0, 0);
        return [v.currentTime, canvas.width, canvas.height,
                ...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data];
    }""")
    seconds, width, height = pixels[:3]
    frame = np.array(pixels[3:], np.uint8).reshape(height, width, 4)[..., :3]
    assert (width, height) == (80, 48) and 50 <= read_index(frame) < 150  # frames have their numbers painted in
    assert abs(read_index(frame) - 25 * seconds) < 5
    video.evaluate('v => { v.playbackRate = 4; }')
    page.wait_for_function('v => v.paused', arg=video.element_handle())
    assert video.evaluate('v => v.currentTime') == pytest.approx(6, abs=0.3)


def test_what_a_browser_cannot_play_is_shown_and_downloaded(page, folder):
    search(page, 'a white square')
    card = page.locator('.vop-card', has_text='old.avi').first
    assert card.locator('video').count() == 0 and 'cannot play .avi: download it' in card.inner_text()
    card.scroll_into_view_if_needed()
    page.wait_for_function('i => i.complete && i.naturalWidth == 80', arg=card.locator('img').element_handle())
    with page.expect_download() as download:
        card.get_by_text('download', exact=True).click()
    assert Path(download.value.path()).read_bytes() == (folder / 'videos' / 'old.avi').read_bytes()
    assert download.value.suggested_filename == 'old.avi'


def test_a_video_that_fails_to_play_is_replaced_by_its_picture(page):
    search(page, 'a white square')
    card = page.locator('.vop-card', has_text='long.mp4').first
    card.locator('video').evaluate('v => { v.src = "theme.css"; v.load(); }')
    page.wait_for_function('c => c.classList.contains("vop-unplayed")', arg=card.element_handle())
    assert card.locator('video').count() == 0 and card.locator('img').is_visible()
    assert 'download it' in card.inner_text()


def test_names_are_text(page, folder):
    found = search(page, '<img src=x onerror=window.hacked=3>')
    assert EVIL in [name for name, _ in found]
    copy = folder / EVIL
    shutil.copy(folder / 'videos' / EVIL, copy)
    upload(page, copy)
    assert page.locator('#vop-neighbors figcaption').inner_text() == EVIL
    assert EVIL in [name for name, _ in shown(page, '#vop-neighbors')][:1]
    assert page.evaluate('() => window.hacked') is None
    assert page.locator('img[src="x"]').count() == 0


def test_an_uploaded_clip_finds_itself_and_its_texts(page, folder, searcher, small_demo):
    clip = sorted((small_demo / 'videos').glob('test_*.mp4'))[4]
    upload(page, clip)
    found = shown(page, '#vop-neighbors')
    assert found[0] == (clip.name, 1.)
    assert agrees(found, searcher.search(video=clip, index=folder / 'vop_f_p', k=8, prompts='vop_f_p'))
    entries = json.loads((small_demo / 'test.json').read_text())['data_list']
    texts = list(dict.fromkeys(caption for entry in entries for caption in entry['captions']))
    ranked = searcher.rank_texts(clip, texts, prompts='vop_f_p')[:5]
    lines = page.locator('#vop-neighbors .vop-texts li').all_inner_texts()
    assert [line.split(maxsplit=1)[1] for line in lines] == [item.text for item in ranked]
    assert [float(line.split()[0]) for line in lines] == pytest.approx([item.score for item in ranked], abs=1e-3)


@pytest.mark.parametrize('name, content, message', [
    ('text.mp4', b'<html>404 Not Found</html>' * 20, "text.mp4 can't be read as a video: "),
    ('empty.mp4', b'', "empty.mp4 can't be read as a video: "),
    ('cut.mp4', 'truncated', "cut.mp4 can't be read as a video: damaged, truncated"),
    ('large.mp4', bytes(2**20 + 1), 'large.mp4 is too large: the limit is 1 MB'),
])
def test_a_bad_file_is_one_message_and_the_page_goes_on(page, server, tmp_path, small_demo, name, content, message):
    path = tmp_path / name
    if content == 'truncated':
        encode_video(path, 100)
        break_video(path, 'truncated')
    else:
        path.write_bytes(content)
    upload(page, path)
    messages = page.locator('#vop-neighbors .vop-message').all_inner_texts()
    assert len(messages) == 1 and messages[0].startswith(message) and '\n' not in messages[0]
    assert not any(str(place) in messages[0] for place in (tmp_path, server.scratch))
    assert 'Traceback' not in server.said() and not list(server.scratch.glob('*.*'))
    clip = sorted((small_demo / 'videos').glob('test_*.mp4'))[0]
    upload(page, clip)
    page.wait_for_selector('#vop-neighbors .vop-cards')
    assert shown(page, '#vop-neighbors')[0][0] == clip.name


@pytest.mark.parametrize('query, message', [
    ('', 'the query is empty'),
    ('  ', 'the query is empty'),
    ('word ' * 10_000, 'the query has 10000 words'),
    ('word ' * 30_000, 'the query has 20000 words'),  # the box takes no more (and Chromium minutes for megabytes)
], ids=['empty', 'blank', 'long', 'huge'])
def test_a_bad_query_is_one_message(page, query, message):
    search(page, 'a circle')
    page.fill('#vop-query textarea', '')
    page.focus('#vop-query textarea')
    page.keyboard.insert_text(query)  # as it is pasted
    click_search(page)
    wait_for_text(page, '#vop-results .vop-message', message)
    assert page.locator('#vop-results').inner_text().startswith(message) and not shown(page, '#vop-results')
    assert search(page, 'a circle')


def test_words_that_the_model_does_not_know_are_named(page, server):
    note = page.locator('#vop-results .vop-unknown')
    assert search(page, 'a <b>man</b> riding a bike')  # as many as an earlier test asked for
    assert note.get_attribute('role') == 'status'
    assert note.inner_text() == "the model doesn't know: b, man, riding, bike"
    assert search(page, 'a red circle') and note.count() == 0
    page.fill('#vop-query textarea', 'собака ' + ' '.join(f'{i}' + 'x' * 60 for i in range(25)))
    click_search(page)
    wait_for_text(page, '#vop-results .vop-unknown', "the model doesn't know: собака, 0xx")
    assert note.inner_text().endswith('xxx... and 16 more') and len(note.inner_text()) < 400
    assert 'riding' not in server.said() and 'UnknownWords' not in server.said()


def test_an_answer_that_never_comes_keeps_no_question_from_being_asked(browser, server):
    page, held = browser.new_page(), []

    def hold_the_first(route):
        if 'a lost circle' in (route.request.post_data or '') and not held:
            held.append(route)
        else:
            route.continue_()

    page.route('**/run/predict*', hold_the_first)
    page.goto(server.url)
    page.wait_for_selector('#vop-summary .vop-summary')
    page.fill('#vop-query textarea', 'a lost circle')
    page.click('#vop-search')
    while not held:
        page.wait_for_timeout(20)
    assert search(page, 'a lost circle')
    held[0].abort()
    page.close()


def test_an_answer_that_comes_late_does_not_replace_a_later_one(browser, server):
    page, held = browser.new_page(), []

    def hold_the_first(route):
        (held.append if 'a late circle' in (route.request.post_data or '') else lambda route: route.continue_())(route)

    page.route('**/run/predict*', hold_the_first)
    page.goto(server.url)
    page.wait_for_selector('#vop-summary .vop-summary')
    page.fill('#vop-query textarea', 'a late circle')
    page.click('#vop-search')
    while not held:
        page.wait_for_timeout(20)
    found = search(page, 'a red square')
    with page.expect_response('**/run/predict*'):
        held[0].continue_()
    page.wait_for_timeout(500)
    assert page.locator('#vop-results .vop-asked').inner_text().startswith('“a red square”')
    assert shown(page, '#vop-results') == found
    assert search(page, 'a blue circle') != found
    page.close()


def test_the_page_fits_on_a_phone(page):
    search(page, 'a white square')
    page.set_viewport_size(dict(width=360, height=740))
    for tab in ('Upload', 'Index', 'Search'):
        page.get_by_role('tab', name=tab).click()
        assert page.evaluate('() => document.documentElement.scrollWidth') <= 360
    page.set_viewport_size(dict(width=1280, height=900))


def test_nothing_is_asked_of_another_host_and_nothing_went_wrong(page, server):
    assert len(page.asked) > 50
    assert all(url.startswith((server.url + '/', 'data:', 'blob:')) for url in page.asked)
    assert [line for line in page.wrong if 'theme.css' not in line] == []


def test_the_state_of_the_index_follows_the_index(page, folder):
    page.get_by_role('tab', name='Index').click()
    table = page.locator('#vop-index')
    wait_for_text(page, '#vop-index', '16 read, 1 cannot be')
    assert table.locator('.vop-failed td').nth(0).inner_text() == 'bad.mp4'
    assert 'not a' in table.locator('.vop-failed td').nth(1).inner_text()
    assert 'MiniCLIP, fingerprint' in table.inner_text() and '4 s long, one every 1 s' in table.inner_text()
    encode_video(folder / 'videos' / 'new.mp4', 20, first=700)
    done = run_tool('tools/index_videos.py', 'videos', 'vop_f_p', cwd=folder)
    assert done.returncode == 0 and '1 added' in done.stdout, done.stderr
    wait_for_text(page, '#vop-index', '17 read, 1 cannot be')
    upload(page, folder / 'videos' / 'new.mp4')
    assert shown(page, '#vop-neighbors')[0] == ('new.mp4', 1.)
    (folder / 'vop_f_p').rename(folder / 'away')
    try:
        page.wait_for_selector('#vop-summary .vop-message')
        page.get_by_role('tab', name='Search').click()
        click_search(page)
        wait_for_text(page, '#vop-results .vop-message', 'no search index: vop_f_p')
    finally:
        (folder / 'away').rename(folder / 'vop_f_p')
    assert search(page, 'a circle')
