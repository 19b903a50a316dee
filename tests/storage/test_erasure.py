from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import canonical, car, dag_pb
from storage import cid as cids
from storage.dag_pb import Link
from storage.erasure import Recipe, TooFewPiecesError, encode_root, rebuild_piece, restore
from storage.errors import ManifestError
from storage.memory import MemoryBlockstore
from storage.unixfs import add_path, hash_path, read_file


def content(tmp_path, size=0):
    """A folder of some files, its store and its root."""
    source = random.Random(5)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a").write_bytes(source.randbytes(1000 + size))
    (tmp_path / "in" / "deep" / "b").write_bytes(source.randbytes(70_000))
    store = MemoryBlockstore()
    return store, add_path(tmp_path / "in", store).root


def only(store, *roots):
    """A store with what is below some roots."""
    kept = MemoryBlockstore()
    kept.put_many(car.walk(roots, store))
    return kept


def test_any_k_pieces_give_the_root_back(tmp_path):
    store, root = content(tmp_path)
    recipe = encode_root(root, store, 3, 5)
    assert Recipe.decode(store.get(recipe.cid)) == recipe
    for pieces in itertools.combinations(recipe.pieces, 3):
        kept = only(store, *pieces)
        assert restore(recipe, kept) == root
        assert car.first_missing(root, kept) is None
    with pytest.raises(TooFewPiecesError):
        restore(recipe, only(store, *recipe.pieces[:2]))


def test_any_piece_is_made_again_as_it_was(tmp_path):
    store, root = content(tmp_path)
    recipe = encode_root(root, store, 3, 5)
    for index in range(5):
        kept = only(store, *[one for one in recipe.pieces if one != recipe.pieces[index]][1:])
        assert rebuild_piece(recipe, index, kept) == recipe.pieces[index]
        assert car.first_missing(recipe.pieces[index], kept) is None


@pytest.mark.slow
def test_pieces_of_many_stripes_are_files_of_whole_leaves(tmp_path):
    store, root = content(tmp_path, 9 * 2**20)
    recipe = encode_root(root, store, 2, 3)
    assert recipe.stripes == 5
    for index, piece in enumerate(recipe.pieces):
        (tmp_path / str(index)).write_bytes(b"".join(read_file(piece, store)))
        assert hash_path(tmp_path / str(index)).root == piece
    kept = only(store, *recipe.pieces[1:])
    assert restore(recipe, kept) == root
    assert rebuild_piece(recipe, 0, kept) == recipe.pieces[0]


@pytest.mark.slow
def test_leaves_that_are_lost_here_and_there_are_made_good_stripe_by_stripe(tmp_path):
    store, root = content(tmp_path, 7 * 2**20)
    recipe = encode_root(root, store, 2, 3)
    kept = only(store, *recipe.pieces)
    leaves = [
        [cid for cid, _ in car.walk([piece], kept) if cids.codec(cid) == cids.RAW]
        for piece in recipe.pieces
    ]
    for stripe in range(recipe.stripes):
        del kept.chunks[leaves[stripe % 3][stripe]]
    assert restore(recipe, kept) == root
    for index in range(3):
        rebuild_piece(recipe, index, kept)
        assert car.first_missing(recipe.pieces[index], kept) is None


def test_equal_content_gives_equal_pieces(tmp_path):
    store, root = content(tmp_path)
    assert encode_root(root, store, 3, 5) == encode_root(root, only(store, root), 3, 5)


def test_pieces_of_another_root_are_refused(tmp_path):
    store, root = content(tmp_path)
    recipe = encode_root(root, store, 3, 5)
    other = Recipe(3, 5, recipe.size, cids.of_raw(b"other"), recipe.pieces)
    with pytest.raises(ManifestError):
        restore(other, only(store, *recipe.pieces))
    swapped = Recipe(
        3, 5, recipe.size, root, (recipe.pieces[1], recipe.pieces[0], *recipe.pieces[2:])
    )
    with pytest.raises(ManifestError):
        restore(swapped, only(store, *recipe.pieces))
    with pytest.raises(ManifestError):
        rebuild_piece(swapped, 4, only(store, *recipe.pieces[:3]))
    for size in (recipe.size + 3, recipe.size + 2**30):
        with pytest.raises(ManifestError):
            restore(Recipe(3, 5, size, root, recipe.pieces), only(store, *recipe.pieces))


def test_a_strangers_recipe_is_checked():
    pieces = [bytes(cids.of_raw(bytes((one,)))) for one in range(3)]
    good = ["swarm/recipe/1", 2, 3, 100, pieces[0], pieces]
    assert Recipe.decode(canonical.encode(good)).m == 3
    for at, wrong in (
        (0, "swarm/recipe/2"),
        (1, 0),
        (1, 3),
        (1, True),
        (2, 4),
        (2, 33),
        (3, 0),
        (3, 2**50 + 1),
        (4, b"x"),
        (5, pieces[:2]),
        (5, [*pieces[:2], 7]),
    ):
        changed = [*good]
        changed[at] = wrong
        with pytest.raises(ManifestError):
            Recipe.decode(canonical.encode(changed))


@given(st.binary(max_size=300))
def test_rubbish_is_no_recipe(data):
    with pytest.raises(ManifestError):
        Recipe.decode(data)


def test_a_piece_whose_nodes_name_each_other_without_end_is_refused(tmp_path):
    store, root = content(tmp_path)
    recipe = encode_root(root, store, 3, 5)
    at = None
    for _ in range(64):
        links = [] if at is None else [Link(at, "", None)] * 2
        block = dag_pb.encode(links, b"")
        at = cids.of_dag_pb(block)
        store.put_many([(at, block)])
    with pytest.raises(ManifestError, match="leaves"):
        rebuild_piece(replace(recipe, pieces=(at, *recipe.pieces[1:])), 1, store)
