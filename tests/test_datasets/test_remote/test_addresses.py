import pytest

from vop_mm.datasets.remote import add_name, public_address


@pytest.mark.parametrize('root, name, expected', [
    ('https://h.org/v', 'a b/ü?#.mp4', 'https://h.org/v/a%20b/%C3%BC%3F%23.mp4'),
    ('https://h.org/v/', '%2e%2e/a.mp4', 'https://h.org/v/%252e%252e/a.mp4'),
    ('https://u:p@h.org/v?token=x', 'a.mp4', 'https://u:p@h.org/v/a.mp4?token=x'),
    ('https://h.org', 'a.mp4', 'https://h.org/a.mp4'),
    ('s3://bucket/v', 'a b?.mp4', 's3://bucket/v/a b?.mp4'),
    ('memory://v/', 'sub/a.mp4', 'memory://v/sub/a.mp4'),
])
def test_a_name_below_an_address(root, name, expected):
    assert add_name(root, name) == expected


@pytest.mark.parametrize('root', ['https://h.org/v', 's3://bucket/v'])
@pytest.mark.parametrize('name', ['../a.mp4', 'a/../../b', '/a.mp4', '', 'a\0', 'http://evil.org/a.mp4', 'a::file',
                                  'file:///etc/passwd', '//evil.org/a.mp4'])
def test_a_name_does_not_lead_elsewhere(root, name):
    with pytest.raises(ValueError):
        add_name(root, name)


@pytest.mark.parametrize('root', ['https://', 'http://h:x/', 'simplecache::s3://b', 'a b://x', 's3://b\n/c'])
def test_not_an_address(root):
    with pytest.raises(ValueError, match='not an address'):
        add_name(root, 'a.mp4')


@pytest.mark.parametrize('address, shown', [
    ('https://user:pa%20ss@h.org/a.mp4', 'https://h.org/a.mp4'),
    ('https://user:p@ss@h.org/a@b.mp4', 'https://h.org/a@b.mp4'),
    ('https://h.org/a.mp4?id=1&X-Amz-Signature=abc&sig=d', 'https://h.org/a.mp4?id=1&X-Amz-Signature=&sig='),
    ('https://h.org/a?access_token=abc#x', 'https://h.org/a?access_token=#x'),
    ('failed at ftp://u:p@h/a: no', 'failed at ftp://h/a: no'),
    ('s3://bucket/a@b.mp4', 's3://bucket/a@b.mp4'),
    ('/videos/a.mp4', '/videos/a.mp4'),
])
def test_what_is_shown_has_no_secrets(address, shown):
    assert public_address(address) == shown
