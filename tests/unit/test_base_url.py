import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.providers.api_base_rules import (
    check_allowed_address,
    check_api_base,
    may_connect,
)

pytestmark = pytest.mark.req("D1", "D4")

CLOSED = (
    "http://169.254.169.254/latest",
    "http://169.254.0.1",
    "https://169.254.169.254:8443/v1",
    "http://169.254.169.254./v1",
    "http://2852039166/v1",  # the same, as one number
    "http://0xA9FEA9FE/v1",
    "http://0xa9.0xfe.0xa9.0xfe",
    "http://0251.0376.0251.0376",
    "http://025177524776",
    "http://169.254.43518",  # the last part stands for two
    "http://169.16689662",
    "http://169.254.0xa9.0376",
    "http://１６９.254.169.254",
    "http://169。254。169。254",
    "http://[fe80::1]",
    "http://[fe80::1%25eth0]:80",
    "http://[febf:ffff::1]",
    "http://[FD00:EC2::254]",
    "http://[fd00:0ec2:0:0:0:0:0:254]",
    "http://[fd00:ec2::23]",
    "http://[fd20:ce::254]",
    "http://[::ffff:169.254.169.254]",
    "http://[::ffff:a9fe:a9fe]",
    "http://[::169.254.169.254]",
    "http://[64:ff9b::a9fe:a9fe]",
    "http://[2002:a9fe:a9fe::1]",
    "http://[64:ff9b:1::a9fe:a9fe]",
    "http://[64:ff9b:1:a9fe:a9:fe00::]",
    "http://[64:ff9b:1:a9:fe:a9fe::]",
    "http://[64:ff9b:1:0:a9:fea9:fe00:0]",
    "http://[2001:0:a9fe:a9fe::]",
    "http://[2001:0:808:808:0:1234:5601:5601]",
    "http://[::ffff:0:a9fe:a9fe]",
    "http://[::ffff:0:169.254.169.254]",
    "http://[2001:db8::5efe:a9fe:a9fe]",
    "http://[2001:db8::200:5efe:169.254.169.254]",
    "http://[2002:808:808::5efe:a9fe:a9fe]",  # 6to4 outside, ISATAP inside
    "http://168.63.129.16",
    "http://168.63.129.16:32526/vmSettings",
    "http://0xa83f8110",
    "http://[::ffff:168.63.129.16]",
    "http://[64:ff9b::a83f:8110]",
    "http://100.100.100.200",
    "http://metadata.google.internal/computeMetadata/v1",
    "http://METADATA.google.internal.",
    "http://metadata",
    "http://instance-data.ec2.internal",
)
BROKEN = (
    "",
    "localhost:8000/v1",
    "ftp://h/v1",
    "file:///etc/passwd",
    "gopher://h",
    "//h/v1",
    "http://",
    "http://:80",
    "http://h:99999",
    "http://h:x",
    "http://h:0",
    "http://user@h/v1",
    "http://user:pass@h/v1",
    "http://@h",
    "http://h\\@169.254.169.254/",
    "http://h/v1 x",
    "http://h\n/v1",
    "http://h/v1?key=1",
    "http://h/v1#frag",
    "http://[::1",
    "http://%31%36%39.254.169.254",
    "http://h!/v1",
)
OPEN = (
    "https://api.openai.com/v1",
    "http://127.0.0.1:11434/v1",
    "http://localhost:8000",
    "http://10.0.0.8/v1",
    "http://192.168.1.20:1234/v1",
    "http://[::1]:81/v1",
    "http://[fd12:3456::1]/v1",
    "http://bücher.test/v1",
    "http://169.255.0.1",
    "http://1.2.3.4.5",  # a name, if an odd one
    "http://metadata.example.org",
    "http://my_host/v1",
    "https://h/a%20b/v1/",
)


@pytest.mark.parametrize("url", CLOSED)
def test_a_metadata_service_is_refused_however_it_is_written(url: str) -> None:
    with pytest.raises(InputError, match="allow_addresses"):
        check_api_base(url)


@pytest.mark.parametrize("url", BROKEN)
def test_what_is_no_plain_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InputError) as refused:
        check_api_base(url)
    assert "pass" not in str(refused.value).replace("password", "")


@pytest.mark.parametrize("url", OPEN)
def test_hosted_local_and_private_places_are_open(url: str) -> None:
    check_api_base(url)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://169.254.169.254", "169.254.169.254"),
        ("http://169.254.10.1", "169.254.0.0/16"),
        ("http://2852039166", "169.254.169.254"),
        ("http://[::ffff:a9fe:a9fe]", "169.254.169.254"),
        ("http://[fe80::5]", "fe80::/10"),
        ("http://metadata.google.internal", "Metadata.Google.Internal"),
    ],
)
def test_what_is_allowed_by_name_is_open(url: str, allowed: str) -> None:
    check_api_base(url, [allowed])
    with pytest.raises(InputError):
        check_api_base(url, ["169.254.1.1", "other.test", "10.0.0.0/8"])


@pytest.mark.parametrize("entry", ["h", "a.b.test", "169.254.0.0/16", "fe80::1", "10.0.0.1"])
def test_an_allowed_place_is_a_name_an_address_or_a_network(entry: str) -> None:
    check_allowed_address(entry)


@pytest.mark.parametrize("entry", ["", "a b", "10.0.0.0/99", "fe80::zz", "http://h"])
def test_nothing_else_is_allowed(entry: str) -> None:
    with pytest.raises(InputError):
        check_allowed_address(entry)


def test_a_name_that_leads_to_a_closed_address_is_not_connected_to() -> None:
    assert may_connect("api.test", "93.184.216.34")
    assert may_connect("api.test", "127.0.0.1")
    assert not may_connect("api.test", "169.254.169.254")
    assert not may_connect("api.test", "fe80::1%eth0")
    assert not may_connect("api.test", "::ffff:169.254.169.254")
    assert may_connect("api.test", "169.254.169.254", ["api.test"])
    assert may_connect("api.test", "169.254.169.254", ["169.254.0.0/16"])
    assert not may_connect("api.test", "not an address")


@given(
    number=st.integers(0, 2**16 - 1),
    form=st.sampled_from(
        [
            "{0}",
            "0x{0:x}",
            "0{0:o}",
            "169.{1}",
            "169.254.{2}",
            "0xa9.254.{2}",
        ]
    ),
)
def test_every_spelling_of_a_link_local_address_is_refused(number: int, form: str) -> None:
    whole = (169 << 24) | (254 << 16) | number
    host = form.format(whole, whole & 0xFFFFFF, number)
    with pytest.raises(InputError, match="allow_addresses"):
        check_api_base(f"http://{host}/v1")


@given(st.text(max_size=40))
def test_any_text_is_open_or_refused_and_never_breaks(text: str) -> None:
    for url in (text, f"http://{text}/v1", f"http://[{text}]/v1"):
        try:
            check_api_base(url, ["10.0.0.0/8"])
        except InputError:
            continue
