"""Names of the server."""
import pytest


@pytest.mark.parametrize('address, server, host, known', [
    ('127.0.0.1', '127.0.0.1', '127.0.0.1:7860', True), ('127.0.0.1', '127.0.0.1', '192.0.2.7', False),
    ('0.0.0.0', '192.0.2.7', '192.0.2.7:7860', True), ('0.0.0.0', '192.0.2.7', '192.0.2.8', False),
    ('0.0.0.0', '192.0.2.7', 'here.example', False), ('0.0.0.0', '192.0.2.7', '0.0.0.0', False),
    ('::', '2001:db8::7', '[2001:DB8:0::7]:7860', True), ('::', '2001:db8::7', '[2001:db8::8]', False),
    ('here.example', '192.0.2.7', 'HERE.example', True), ('here.example', '192.0.2.7', '192.0.2.7', False),
    ('192.0.2.7', '192.0.2.7', '192.0.2.7', True), ('192.0.2.7', '192.0.2.7', 'localhost', True),
])
def test_a_server_is_called_by_its_address(address, server, host, known):
    pytest.importorskip('starlette')
    from starlette.datastructures import Headers

    from vop_mm.search.page.hosts import Hosts
    assert (Hosts(address).called(Headers({'host': host}), (server, 7860)) == host) == known
