"""HTML of the page."""
import dataclasses
import os

import pytest

from vop_mm.search.page import cards
from vop_mm.search.page.collection import open_collections


def test_html_holds_no_text_from_outside(folder):
    collection, = open_collections({'vop': folder / 'vop'})
    evil = '<script>"\'&\udcff'
    found = collection.search('a circle', 1)[0]
    found = [dataclasses.replace(found, name=f'{evil}.mp4')]
    html = ''.join([
        cards.message(evil), cards.heading(evil, evil), cards.uploaded(evil, b''), cards.status_table(
            evil, evil, dataclasses.replace(collection.status(), failed=[(evil, evil)])),
        cards.cards(found, 0, {os.path.realpath(found[0].path): [evil]}),
        cards.ranked_texts([], 1, evil), cards.unknown([evil])])
    assert '<script' not in html and html.count('&lt;script&gt;&quot;&#x27;&amp;?') >= 11
    html.encode()


def test_values_are_escaped_whatever_type_they_claim(folder):
    collection, = open_collections({'vop': folder / 'vop'})
    found, status = collection.search('a circle', 1)[0], collection.status()
    collection.close()
    evil = '"><img src=x onerror=a>'
    for key in ('name', 'version'):
        assert '<img src=x' not in cards.cards([dataclasses.replace(found, **{key: evil})], 0, {})
    for key in ('number', 'score', 'start', 'end'):
        with pytest.raises((ValueError, TypeError)):
            cards.cards([dataclasses.replace(found, **{key: evil})], 0, {})
    for key in ('window', 'stride', 'CLIP', 'prompts', 'dim'):
        for settings in ({**status.settings, key: evil}, {**status.settings, key: [evil]}, {key: {evil: evil}}):
            assert '<img' not in cards.status_table('a', 'b', dataclasses.replace(status, settings=settings))
    for key in ('videos', 'backend'):
        assert '<img' not in cards.status_table('a', 'b', dataclasses.replace(status, **{key: evil}))


@pytest.mark.parametrize('text, told', [
    ('[/tmp/.vop_mm.12.page.tmp/tmpab.mp4] Failed to measure duration', '[...] Failed to measure duration'),
    ("can't open '/srv/x/y.mp4': gone", "can't open '...': gone"),
    ('no search index: /home/somebody/index', 'no search index: ...'),
    ("the path '/srv/my (own), videos/y.mp4' leads out", "the path '...' leads out"),
    ('the path "/srv/it\'s/y" isn\'t / there', 'the path "..." isn\'t / there'),
    ('see file:///etc/passwd', 'see ...'),
    ('H.264/AVC, 1/2, km/h, and/or', 'H.264/AVC, 1/2, km/h, and/or'),
])
def test_messages_name_no_path_of_the_machine(text, told):
    assert cards.without_paths(text) == told
