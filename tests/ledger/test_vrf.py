from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings

from swarm.ledger import beacon, validators, vrf
from swarm.ledger.errors import VrfError
from swarm.ledger.state import EpochSet, EpochValidator
from swarm.ledger.vrf import VrfKey

# RFC 9381, appendix B.3, examples 16 to 18: secret key, public key, alpha, proof, output.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "8657106690b5526245a92b003bb079ccd1a92130477671f6fc01ad16f26f723f"
        "26f8a57ccaed74ee1b190bed1f479d9727d2d0f9b005a6e456a35d4fb0daab12"
        "68a1b0db10836d9826a528ca76567805",
        "90cf1df3b703cce59e2a35b925d411164068269d7b2d29f3301c03dd757876ff"
        "66b71dda49d2de59d03450451af026798e8f81cd2e333de5cdf4f3e140fdd8ae",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "f3141cd382dc42909d19ec5110469e4feae18300e94f304590abdced48aed593"
        "3bf0864a62558b3ed7f2fea45c92a465301b3bbf5e3e54ddf2d935be3b67926d"
        "a3ef39226bbc355bdc9850112c8f4b02",
        "eb4440665d3891d668e7e0fcaf587f1b4bd7fbfe99d0eb2211ccec90496310eb"
        "5e33821bc613efb94db5e5b54c70a848a0bef4553a41befc57663b56373a5031",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "9bc0f79119cc5604bf02d23b4caede71393cedfbb191434dd016d30177ccbf80"
        "96bb474e53895c362d8628ee9f9ea3c0e52c7a5c691b6c18c9979866568add7a"
        "2d41b00b05081ed0f58ee5e31b3a970e",
        "645427e5d00c62a23fb703732fa5d892940935942101e456ecca7bb217c61c45"
        "2118fec1219202a0edcf038bb6373241578be7217ba85a2687f7a0310b2df19f",
    ),
]


@pytest.mark.parametrize(("secret", "public", "alpha", "proof", "output"), VECTORS)
def test_the_vectors_of_the_rfc_hold(secret, public, alpha, proof, output):
    key = VrfKey(bytes.fromhex(secret))
    assert key.public_key.hex() == public
    assert key.prove(bytes.fromhex(alpha)).hex() == proof
    verified = vrf.verify(key.public_key, bytes.fromhex(alpha), bytes.fromhex(proof))
    assert verified.hex() == output


# H of the same examples: the point that try and increment finds.
POINTS = [
    "91bbed02a99461df1ad4c6564a5f5d829d0b90cfc7903e7a5797bd658abf3318",
    "5b659fc3d4e9263fd9a4ed1d022d75eaacc20df5e09f9ea937502396598dc551",
    "bf4339376f5542811de615e3313d2b36f6f53c0acfebb482159711201192576a",
]


@pytest.mark.parametrize(("vector", "point"), list(zip(VECTORS, POINTS, strict=True)))
def test_the_points_of_the_rfc_are_found(vector, point):
    _, public, alpha, _, _ = vector
    assert vrf._to_curve(bytes.fromhex(public), bytes.fromhex(alpha)).hex() == point


def test_a_changed_proof_input_or_key_is_refused():
    key, other = VrfKey.of(b"a" * 32), VrfKey.of(b"b" * 32)
    proof = key.prove(b"alpha")
    assert len(vrf.verify(key.public_key, b"alpha", proof)) == vrf.OUTPUT_BYTES
    for at in range(vrf.PROOF_BYTES):
        changed = bytearray(proof)
        changed[at] ^= 1
        with pytest.raises(VrfError):
            vrf.verify(key.public_key, b"alpha", bytes(changed))
    for public, alpha in ((key.public_key, b"other"), (other.public_key, b"alpha")):
        with pytest.raises(VrfError):
            vrf.verify(public, alpha, proof)


SMALL = [
    bytes(32),  # order 4
    b"\x01" + bytes(31),  # the identity
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),  # order 2
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),  # order 8
    bytes.fromhex(
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
    ),  # p: not reduced
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),  # p + 1
    b"\xff" * 32,
]


@pytest.mark.parametrize("point", SMALL, ids=range(len(SMALL)))
def test_points_of_small_order_and_malformed_ones_are_refused(point):
    key = VrfKey.of(b"a" * 32)
    proof = key.prove(b"alpha")
    assert not vrf.is_key(point)
    with pytest.raises(VrfError):
        vrf.verify(point, b"alpha", proof)
    with pytest.raises(VrfError):
        vrf.verify(key.public_key, b"alpha", point + proof[32:])


@pytest.mark.parametrize("torsion", [SMALL[0], SMALL[2], SMALL[3]], ids=[4, 2, 8])
def test_a_point_of_prime_order_with_one_of_small_order_added_is_refused(torsion):
    """RFC 9381 clears the cofactor and would take it; here an output has one key and one Gamma alone."""
    key = VrfKey.of(b"a" * 32)
    proof = key.prove(b"alpha")
    mixed = bindings.crypto_core_ed25519_add(key.public_key, torsion)
    assert not vrf.is_key(mixed)
    with pytest.raises(VrfError):
        vrf.verify(mixed, b"alpha", proof)
    gamma = bindings.crypto_core_ed25519_add(proof[:32], torsion)
    assert vrf.output(gamma + proof[32:]) == vrf.output(proof)
    with pytest.raises(VrfError):
        vrf.verify(key.public_key, b"alpha", gamma + proof[32:])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=100), st.binary(max_size=40), st.binary(max_size=100))
def test_whatever_is_no_proof_is_a_vrf_error(public, alpha, proof):
    key = VrfKey.of(b"a" * 32)
    honest = key.prove(alpha)
    for one, two in ((public, honest), (key.public_key, proof), (key.public_key, honest + proof)):
        if (one, two) != (key.public_key, honest):
            with pytest.raises(VrfError):
                vrf.verify(one, alpha, two)


@pytest.mark.parametrize(
    "malformed", [b"", b"x", bytes(80), bytes(79), bytes(81)], ids=["0", "1", "zero", "79", "81"]
)
def test_a_malformed_proof_is_refused(malformed):
    with pytest.raises(VrfError):
        vrf.verify(VrfKey.of(b"a" * 32).public_key, b"", malformed)


def test_a_scalar_that_is_not_reduced_is_refused():
    key = VrfKey.of(b"a" * 32)
    proof = key.prove(b"alpha")
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(proof[48:], "little") + order
    with pytest.raises(VrfError):
        vrf.verify(key.public_key, b"alpha", proof[:48] + scalar.to_bytes(32, "little"))


def test_the_vrf_key_of_a_node_is_not_its_signing_key():
    assert VrfKey.of(b"a" * 32).public_key != VrfKey(b"a" * 32).public_key


def test_beacons_depend_on_all_that_came_before():
    first = beacon.first(b"c" * 32)
    assert beacon.following(first, b"x" * 64) != beacon.following(first, b"y" * 64)
    assert beacon.vrf_input(first, 1) != beacon.vrf_input(first, 2)


def test_leaders_are_drawn_by_stake_and_stay():
    members = tuple(
        EpochValidator(bytes([at]) * 32, b"", weight) for at, weight in enumerate((1, 2, 7))
    )
    epoch = EpochSet(3, b"s" * 32, members)
    drawn = [validators.leader(epoch, view).public_key[0] for view in range(2000)]
    assert drawn == [validators.leader(epoch, view).public_key[0] for view in range(2000)]
    shares = [drawn.count(at) / 2000 for at in range(3)]
    assert [round(share, 1) for share in shares] == [0.1, 0.2, 0.7]
    other = EpochSet(4, b"s" * 32, members)
    assert [validators.leader(other, view).public_key[0] for view in range(2000)] != drawn
