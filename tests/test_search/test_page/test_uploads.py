"""Uploaded clips."""
import asyncio
import time
from pathlib import Path

import pytest


@pytest.mark.parametrize('parts, pause, status, message', [
    ((b'ab', b'cd'), 0, 200, 'abcd as a.mp4'),
    ((b'ab', b'cdefgh'), 0, 400, 'a.mp4 was not received completely, or not in time'),  # more than the request said
    ((b'ab', b'cd'), 5, 400, 'a.mp4 was not received completely, or not in time'),  # too long without a byte
    ((b'a', b'b', b'c', b'd', b''), 0.25, 400, 'a.mp4 was not received completely, or not in time'),  # too slowly
])
def test_an_upload_is_limited_in_size_and_time(tmp_path, parts, pause, status, message):
    httpx, starlette = pytest.importorskip('httpx'), pytest.importorskip('starlette.applications')
    from vop_mm.search.page.uploads import upload_route

    def answer(path, name):
        assert path.startswith(str(tmp_path)) and path.endswith('.mp4')
        return f'{Path(path).read_text()} as {name}'

    async def body():
        for part in parts:
            yield part
            await asyncio.sleep(pause)

    async def post():
        app = starlette.Starlette(routes=[upload_route([answer], 4, str(tmp_path), pause=0.5)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url='http://page') as client:
            return await client.post('/nearest/0?name=a.mp4', content=body(), headers={'content-length': '4'})

    found = asyncio.run(post())
    assert found.status_code == status and message in found.text and not list(tmp_path.iterdir())


def test_an_upload_whose_client_is_gone_is_not_computed(tmp_path):
    starlette = pytest.importorskip('starlette.applications')
    from vop_mm.search.page.uploads import upload_route
    computed = []

    def answer(path, name):
        computed.append(name)
        time.sleep(0.2)
        return name

    async def post(app, name, stays):
        messages = [dict(type='http.request', body=b'ab')]

        async def receive():
            if not messages and stays:
                await asyncio.sleep(10)
            return messages.pop() if messages else dict(type='http.disconnect')

        async def send(message):
            pass

        await app(dict(type='http', method='POST', path='/nearest/0', query_string=f'name={name}'.encode(),
                       headers=[(b'content-length', b'2')]), receive, send)

    async def post_all():
        app = starlette.Starlette(routes=[upload_route([answer], 4, str(tmp_path))])
        await asyncio.gather(*(post(app, name, name != 'gone') for name in ('first', 'gone', 'last')))

    asyncio.run(post_all())
    assert sorted(computed) == ['first', 'last']  # in the order in which they came whole
    assert not list(tmp_path.iterdir())
