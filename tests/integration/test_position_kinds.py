"""What the sinks of every kind of position hold, against formulas written down here.

Each model is one attention layer (two, where layers differ) with one kind of position in it. Its
relevance is derived a second time in NumPy, from the rotation matrices and biases themselves; no
operation of the graph and nothing of the package is used for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from building import Array, floats, ints, opened, proto, real, wide

from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

B, T, H, D, PAD = 2, 20, 2, 8, 1
F = H * D
ROWS, COLUMNS = 4, 5
BASE, CLASSES, TARGET = 100.0, 3, 1
IDS = np.random.default_rng(0).integers(2, 30, size=(B, T))
IDS[1, -2:] = PAD
MASK = (IDS != PAD).astype(np.int64)

WEIGHTS: dict[str, Array] = {
    "words": real(30, F, seed=1),
    **{f"w{n}_{k}": real(F, F, seed=2 + 3 * k + "qkv".index(n)) / 4 for n in "qkv" for k in (0, 1)},
    "head": real(T * F, CLASSES, seed=9),
    "cut": ints(0, 0, H, D),
    "join": ints(0, 0, F),
    "flat": ints(0, 0, 0, -1),
    "last": ints(-1),
    "i0": ints(0),
    "i1": ints(1),
    "i2": ints(2),
    "i4": ints(D // 2),
    "i8": ints(D),
    "none": ints(0).reshape(()),
    "single": ints(1).reshape(()),
    "pad": ints(PAD),
}


# ------------------------------------------------------------------- the layer, as formulas


@dataclass(frozen=True)
class Turn:
    """A rotation of queries and keys at every place.

    Attributes:
        angles: [T, pairs].
        pairs: The two features that each angle turns in their plane.
        stretch: Length of a turned vector of length one.
    """

    angles: Array
    pairs: tuple[tuple[int, int], ...]
    stretch: float = 1.0

    def matrices(self) -> Array:
        """[T, D, D]; what is not turned stays as it is."""
        found = np.tile(np.eye(D), (len(self.angles), 1, 1))
        for t, row in enumerate(self.angles):
            for angle, (a, b) in zip(row, self.pairs, strict=True):
                turned = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
                found[t][np.ix_((a, b), (a, b))] = np.array(turned) * self.stretch
        return found

    @property
    def turned(self) -> list[int]:
        return sorted(feature for pair in self.pairs for feature in pair)


#: (q, k) before they are turned → what is added to the scores [B, H, i, j].
Scores = Callable[[Array, Array], Array]


@dataclass
class Layer:
    """One attention layer: S = q′·k′ + extra, y = softmax(S) v."""

    x: Array
    index: int = 0
    turn: Turn | None = None
    extra: Scores | None = None

    def __post_init__(self) -> None:
        self.q, self.k, self.v = (self._heads(self.x @ self.weight(n)) for n in "qkv")
        self.matrices = np.tile(np.eye(D), (T, 1, 1))
        if self.turn is not None:
            self.matrices = self.turn.matrices()
        self.q_turned, self.k_turned = self._turned(self.q), self._turned(self.k)
        scores = np.einsum("bhid,bhjd->bhij", self.q_turned, self.k_turned)
        if self.extra is not None:
            scores = scores + self.extra(self.q, self.k)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        self.p = weights / weights.sum(axis=-1, keepdims=True)
        self.y = self._joined(np.einsum("bhij,bhjd->bhid", self.p, self.v))

    def weight(self, name: str) -> Array:
        return wide(WEIGHTS[f"w{name}_{self.index}"])

    def _heads(self, a: Array) -> Array:
        return a.reshape(B, T, H, D).transpose(0, 2, 1, 3)

    def _joined(self, a: Array) -> Array:
        return a.transpose(0, 2, 1, 3).reshape(B, T, F)

    def _turned(self, a: Array) -> Array:
        return np.asarray(np.einsum("tde,bhte->bhtd", self.matrices, a))

    def back(self, m: Array) -> None:
        """From the multiplier of y to those of scores, turned queries and keys, and x."""
        m = self._heads(m)
        to_p = 0.5 * np.einsum("bhid,bhjd->bhij", m, self.v)  # a product of two activations
        to_v = 0.5 * np.einsum("bhij,bhid->bhjd", self.p, m)
        self.m_scores = self.p * (to_p - (self.p * to_p).sum(axis=-1, keepdims=True))
        self.m_q = 0.5 * np.einsum("bhij,bhjd->bhid", self.m_scores, self.k_turned)
        self.m_k = 0.5 * np.einsum("bhij,bhid->bhjd", self.m_scores, self.q_turned)
        before = [self._unturned(self.m_q), self._unturned(self.m_k), to_v]
        sent = [self._joined(a) @ self.weight(n).T for a, n in zip(before, "qkv", strict=True)]
        self.m_x = np.sum(sent, axis=0)

    def _unturned(self, m: Array) -> Array:
        """Where a rotation multiplies, the table keeps one half."""
        kept = np.ones(D)
        if self.turn is not None:
            kept[self.turn.turned] = 0.5
        return np.asarray(np.einsum("tde,bhtd->bhte", self.matrices, m * kept))

    def rope(self) -> dict[str, Array]:
        """Eq. 10: half of each entry of the matrix; cosines stand on its diagonal.

        Row d of the matrix makes feature d; queries and keys and all heads are summed.
        """
        assert self.turn is not None
        stays = np.eye(D, dtype=bool)
        parts = {"cos": np.where(stays, self.matrices, 0), "sin": np.where(stays, 0, self.matrices)}
        return {
            part: sum(
                0.5 * np.einsum("bhtd,tde,bhte->btd", m, entries, a)[..., self.turn.turned]
                for m, a in ((self.m_q, self.q), (self.m_k, self.k))
            )
            for part, entries in parts.items()
        }

    def shared(self, relevance: Array) -> dict[str, Array]:
        """Relevance of pairs [B, H, i, j]: one half to the query's place, one to the key's.

        Heads are the features: each has a bias of its own.
        """
        return {
            "query": 0.5 * relevance.sum(axis=3).transpose(0, 2, 1),
            "key": 0.5 * relevance.sum(axis=2).transpose(0, 2, 1),
        }


def seed() -> Array:
    """Multiplier of the last layer: the target's column of the head."""
    return np.broadcast_to(wide(WEIGHTS["head"])[:, TARGET].reshape(T, F), (B, T, F))


def solved(layer: Layer) -> Layer:
    layer.back(seed())
    return layer


def embedded() -> Array:
    return wide(WEIGHTS["words"])[IDS]


# --------------------------------------------------------------------- the layer, as a graph

LAYER = """q0_ = MatMul(IN, wq_)  q1_ = Reshape(q0_, cut)  q_ = Transpose <perm=[0, 2, 1, 3]> (q1_)
    k0_ = MatMul(IN, wk_)  k1_ = Reshape(k0_, cut)  k_ = Transpose <perm=[0, 2, 1, 3]> (k1_)
    v0_ = MatMul(IN, wv_)  v1_ = Reshape(v0_, cut)  v_ = Transpose <perm=[0, 2, 1, 3]> (v1_)
    TURN  kt_ = Transpose <perm=[0, 1, 3, 2]> (kr_)  s_ = MatMul(qr_, kt_)  SCORES
    p_ = Softmax <axis=-1> (z_)  c_ = MatMul(p_, v_)
    t_ = Transpose <perm=[0, 2, 1, 3]> (c_)  OUT = Reshape(t_, join)
"""
STAY = "qr_ = Identity(q_)  kr_ = Identity(k_)"
SAME = "z_ = Identity(s_)"


def layer(turn: str = STAY, scores: str = SAME, name: str = "0", ends: str = "e out") -> str:
    """One layer from the first of ``ends`` to the second; ``_`` ends its own names."""
    text = LAYER.replace("TURN", turn).replace("SCORES", scores)
    start, end = ends.split()
    text = text.replace("IN,", f"{start},").replace("OUT", end)
    return re.sub(r"_(?=[ ,)])", f"_{name}", text)


def model_of(body: str, weights: Mapping[str, Array], feeds: Mapping[str, Array]) -> str:
    """Path of the model: words looked up, ``body`` from x to out, and the head."""
    text = f"x = Gather(words, ids)  {body}  f = Flatten(out)  y = MatMul(f, head)"
    known = {**WEIGHTS, **weights}
    used = {name: array for name, array in known.items() if re.search(rf"\b{name}\b", text)}
    return str(opened(proto(text, feeds, used)).path)


@dataclass(frozen=True)
class Case:
    """A graph and what its sinks hold: kind, layer and part → [B, T, features]."""

    body: str
    expected: Callable[[], dict[tuple[str, int, str], Array]]
    weights: Mapping[str, Array] = field(default_factory=dict)
    feeds: Mapping[str, Array] = field(default_factory=dict)


def check(case: Case) -> None:
    """Both engines find these sinks, and the ledger closes."""
    feeds = {"ids": IDS, **case.feeds}
    path = model_of(case.body, case.weights, feeds)
    expected = case.expected()
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    for dtype, tolerance, rounding in (("float64", 1e-9, 1e-12), ("float32", 2e-5, 1e-5)):
        rows = Explainer(path, dtype=dtype).explain(sample, str(TARGET))
        for row, found in enumerate(rows):
            sites = {(s.kind, s.layer, s.part): s for s in found.record.sites}
            assert sites.keys() == expected.keys()
            for key, relevance in expected.items():
                ours = found.tensors[sites[key].name][0]
                assert ours.shape == relevance[row].shape
                np.testing.assert_allclose(
                    ours, relevance[row], rtol=0, atol=tolerance * np.abs(relevance).max()
                )
            whole = sum(relevance[row].sum() for relevance in expected.values())
            scale = sum(np.abs(relevance[row]).sum() for relevance in expected.values())
            assert abs(found.record.ledger["position"] - whole) <= tolerance * scale
            assert abs(found.record.ledger["residual_relative"]) < rounding


# ----------------------------------------------------------------------------------- rotations

PLACES = """n_ = Shape <start=1, end=2> (x)  m_ = Squeeze(n_)  r_ = Range(none, m_, single)
    places_ = Cast <to=1> (r_)  col_ = Unsqueeze(places_, last)  """
PLAIN = PLACES + "ang_ = Mul(col_, inv_)  "
WAVES = "co_ = Cos(ang_)  si_ = Sin(ang_)  "
BESIDE = "cos_ = Concat <axis=-1> (co_, co_)  sin_ = Concat <axis=-1> (si_, si_)  "
TWICE = """cu_ = Unsqueeze(co_, last)  cb_ = Concat <axis=-1> (cu_, cu_)  cos_ = Reshape(cb_, row)
    su_ = Unsqueeze(si_, last)  sb_ = Concat <axis=-1> (su_, su_)  sin_ = Reshape(sb_, row)  """

#: From X to its rotation Xr by the tables cos and sin; in Xh the two features are exchanged.
HALVES = """Xa_ = Slice(X_, i0, i4, last)  Xb_ = Slice(X_, i4, i8, last)
    Xn_ = Neg(Xb_)  Xh_ = Concat <axis=-1> (Xn_, Xa_)
    Xc_ = Mul(X_, cos_)  Xs_ = Mul(Xh_, sin_)  Xr_ = Add(Xc_, Xs_)  """
EVERY_TWO = """Xa_ = Slice(X_, i0, i8, last, i2)  Xb_ = Slice(X_, i1, i8, last, i2)
    Xn_ = Neg(Xb_)  Xu_ = Unsqueeze(Xn_, last)  Xw_ = Unsqueeze(Xa_, last)
    Xe_ = Concat <axis=-1> (Xu_, Xw_)  Xh_ = Reshape(Xe_, flat)
    Xc_ = Mul(X_, cos_)  Xs_ = Mul(Xh_, sin_)  Xr_ = Add(Xc_, Xs_)  """
PART = """Xf_ = Slice(X_, i0, i4, last)  Xo_ = Slice(X_, i4, i8, last)
    Xa_ = Slice(Xf_, i0, i2, last)  Xb_ = Slice(Xf_, i2, i4, last)
    Xn_ = Neg(Xb_)  Xh_ = Concat <axis=-1> (Xn_, Xa_)
    Xc_ = Mul(Xf_, cos_)  Xs_ = Mul(Xh_, sin_)  Xi_ = Add(Xc_, Xs_)
    Xr_ = Concat <axis=-1> (Xi_, Xo_)  """
#: Real and imaginary parts apart: four products, the sign in a difference.
APART = """Xa_ = Slice(X_, i0, i4, last)  Xb_ = Slice(X_, i4, i8, last)
    Xac_ = Mul(Xa_, co_)  Xbs_ = Mul(Xb_, si_)  Xas_ = Mul(Xa_, si_)  Xbc_ = Mul(Xb_, co_)
    Xre_ = Sub(Xac_, Xbs_)  Xim_ = Add(Xas_, Xbc_)  Xr_ = Concat <axis=-1> (Xre_, Xim_)  """


def turned(tables: str, how: str) -> str:
    """Tables, and queries and keys turned by them."""
    return tables + "".join(re.sub(r"\bX", each, how) for each in "qk")


def frequencies(count: int, base: float = BASE) -> Array:
    """The usual ones, as the graph stores them."""
    return np.array([base ** (-i / count) for i in range(count)], np.float32)


def beside(count: int) -> tuple[tuple[int, int], ...]:
    return tuple((i, i + count) for i in range(count))


NEIGHBOURS = tuple((2 * i, 2 * i + 1) for i in range(D // 2))
PLACE = np.arange(T)[:, None]
ROW = {"row": ints(0, -1)}


def rotated(text: str, turn: Turn, **weights: Array) -> Case:
    """One layer whose queries and keys are turned."""

    def expected() -> dict[tuple[str, int, str], Array]:
        mine = solved(Layer(embedded(), turn=turn))
        return {("rope", 0, part): r for part, r in mine.rope().items()}

    return Case("e = Identity(x)  " + layer(text), expected, weights)


def usual(angles: Array, **more: float) -> Turn:
    return Turn(angles, beside(D // 2), **more)


INV = frequencies(D // 2)
#: NTK: the base grows with the length; scale 2, trained on 8 tokens.
POWER = floats(D / (D - 2))
NTK = (
    PLACES
    + """len_ = Cast <to=1> (n_)  g_ = Mul(len_, ratio)  g1_ = Sub(g_, one)
    g2_ = Pow(g1_, power)  g3_ = Mul(g2_, base)  i_ = Pow(g3_, minus)  ang_ = Mul(col_, i_)  """
)
GROWN = BASE * (2 * T / 8 - 1) ** float(POWER[0])
#: LLaMA 3: waves longer than 40 are stretched by 8, shorter than 10 stay, others in between.
LLAMA3 = (
    PLACES
    + """w_ = Div(circle, inv_)  long_ = Greater(w_, forty)  short_ = Less(w_, ten)
    slow_ = Div(inv_, eight)  u0_ = Div(forty, w_)  u1_ = Sub(u0_, one)  u_ = Div(u1_, three)
    y0_ = Sub(one, u_)  y1_ = Mul(y0_, slow_)  y2_ = Mul(u_, inv_)  mid_ = Add(y1_, y2_)
    i1_ = Where(short_, inv_, mid_)  i_ = Where(long_, slow_, i1_)  ang_ = Mul(col_, i_)  """
)


def llama3(frequency: float) -> float:
    wave = float(np.float32(2 * np.pi)) / frequency
    if wave > 40:
        return frequency / 8
    if wave < 10:
        return frequency
    smooth = (40 / wave - 1) / 3
    return (1 - smooth) * frequency / 8 + smooth * frequency


ROTATIONS = {
    "halves": rotated(turned(PLAIN + WAVES + BESIDE, HALVES), usual(PLACE * wide(INV)), inv_0=INV),
    "neighbours": rotated(
        turned(PLAIN + WAVES + TWICE, EVERY_TWO),
        Turn(PLACE * wide(INV), NEIGHBOURS),
        inv_0=INV,
        **ROW,
    ),
    "a part of the features": rotated(
        turned(PLAIN + WAVES + BESIDE, PART),
        Turn(PLACE * wide(frequencies(2)), beside(2)),
        inv_0=frequencies(2),
    ),
    "linear scaling": rotated(
        turned(
            PLACES + "near_ = Div(col_, four)  ang_ = Mul(near_, inv_)  " + WAVES + BESIDE, HALVES
        ),
        usual(PLACE / 4 * wide(INV)),
        inv_0=INV,
        four=floats(4),
    ),
    "NTK by length": rotated(
        turned(NTK + WAVES + BESIDE, HALVES),
        usual(PLACE * np.array([GROWN ** (-i / 4) for i in range(4)])),
        ratio=floats(2 / 8),
        one=floats(1),
        power=POWER,
        base=floats(BASE),
        minus=floats(0, -0.25, -0.5, -0.75),
    ),
    "LLaMA 3": rotated(
        turned(LLAMA3 + WAVES + BESIDE, HALVES),
        usual(PLACE * np.array([llama3(f) for f in wide(INV)])),
        inv_0=INV,
        circle=floats(2 * np.pi),
        **{
            name: floats(n)
            for name, n in (("one", 1), ("three", 3), ("eight", 8), ("ten", 10), ("forty", 40))
        },
    ),
    "longer and shorter vectors": rotated(
        turned(
            PLAIN
            + WAVES
            + BESIDE.replace("cos_", "cl_").replace("sin_", "sl_")
            + "cos_ = Mul(cl_, longer)  sin_ = Mul(sl_, longer)  ",
            HALVES,
        ),
        usual(PLACE * wide(INV), stretch=1.25),
        inv_0=INV,
        longer=floats(1.25),
    ),
}


@pytest.mark.parametrize("name", ROTATIONS)
def test_rotations(name: str) -> None:
    check(ROTATIONS[name])


def test_rotations_in_four_products() -> None:
    """Tables with one column a pair: its sink holds both features."""
    case = rotated(turned(PLAIN + WAVES, APART), usual(PLACE * wide(INV)), inv_0=INV)

    def expected() -> dict[tuple[str, int, str], Array]:
        whole = case.expected()
        return {key: r[..., : D // 2] + r[..., D // 2 :] for key, r in whole.items()}

    check(Case(case.body, expected, case.weights))


def test_two_bases_in_two_layers() -> None:
    """Each layer has sinks of its own, for its own angles."""
    text = turned(PLAIN + WAVES + BESIDE, HALVES)
    inverse = {"inv_0": INV, "inv_1": frequencies(D // 2, 7.0)}
    body = "e = Identity(x)  " + layer(text, ends="e h") + layer(text, name="1", ends="h out")

    def expected() -> dict[tuple[str, int, str], Array]:
        turns = [usual(PLACE * wide(table)) for table in inverse.values()]
        first = Layer(embedded(), turn=turns[0])
        second = solved(Layer(first.y, 1, turns[1]))
        first.back(second.m_x)
        return {
            ("rope", k, part): r
            for k, mine in enumerate((first, second))
            for part, r in mine.rope().items()
        }

    check(Case(body, expected, inverse))


#: A picture of 4 × 5 tokens: rows turn half of the features, columns the other half.
GRID = np.stack(np.unravel_index(np.arange(T), (ROWS, COLUMNS)), axis=1)
TURNED_GRID = Turn(
    np.concatenate(
        [GRID[:, :1] * wide(frequencies(2)), GRID[:, 1:] * wide(frequencies(2))], axis=1
    ),
    NEIGHBOURS,
)
GRID_TABLES = {
    "tall": GRID.repeat(2, axis=1).astype(np.float32),
    "inv_0": np.tile(frequencies(2), 2),
    **ROW,
}
FLAT_GRID = "ang_ = Mul(tall, inv_)  " + WAVES + TWICE


def test_rows_and_columns_of_a_picture() -> None:
    check(rotated(turned(FLAT_GRID, EVERY_TWO), TURNED_GRID, **GRID_TABLES))


#: The same with the axes of the picture apart: tables of one row a row, and one a column.
ON_GRID = """rowang_ = Mul(rows, inv_)  rc_ = Cos(rowang_)  rs_ = Sin(rowang_)
    rowcos_ = Concat <axis=-1> (rc_, rc_)  rowsin_ = Concat <axis=-1> (rs_, rs_)
    colang_ = Mul(columns, inv_)  cc_ = Cos(colang_)  cs_ = Sin(colang_)
    colcos_ = Concat <axis=-1> (cc_, cc_)  colsin_ = Concat <axis=-1> (cs_, cs_)  """
APIECE = """XYa_ = Slice(XY_, i0, i2, last)  XYb_ = Slice(XY_, i2, i4, last)  XYn_ = Neg(XYb_)
    XYh_ = Concat <axis=-1> (XYn_, XYa_)  XYc_ = Mul(XY_, Ycos_)  XYs_ = Mul(XYh_, Ysin_)
    XYr_ = Add(XYc_, XYs_)  """
BY_AXES = (
    "Xg_ = Reshape(X_, grid)  Xrow_ = Slice(Xg_, i0, i4, last)  Xcol_ = Slice(Xg_, i4, i8, last)  "
    + APIECE.replace("Y", "row")
    + APIECE.replace("Y", "col")
    + "Xj_ = Concat <axis=-1> (Xrowr_, Xcolr_)  Xr_ = Reshape(Xj_, ungrid)  "
)


def test_rows_and_columns_on_the_grid() -> None:
    """A sink for the tables of rows, and one for those of columns."""
    pairs = ((0, 2), (1, 3), (4, 6), (5, 7))
    case = rotated(
        turned(ON_GRID, BY_AXES),
        Turn(TURNED_GRID.angles, pairs),
        rows=np.arange(ROWS, dtype=np.float32).reshape(ROWS, 1, 1),
        columns=np.arange(COLUMNS, dtype=np.float32).reshape(COLUMNS, 1),
        inv_0=frequencies(2),
        grid=ints(0, 0, ROWS, COLUMNS, D),
        ungrid=ints(0, 0, T, D),
    )

    def apart() -> dict[tuple[str, int, str], Array]:
        half = D // 2
        return {
            (kind, layer, part + number): table[..., place]
            for (kind, layer, part), table in case.expected().items()
            for number, place in (("", slice(half)), (".2", slice(half, None)))
        }

    check(replace(case, expected=apart))


# -------------------------------------------------------------------- tables added to the input


TABLE = real(T + 4, F, seed=61)


def added(text: str, kind: str, rows: Array, **more: Array) -> Case:
    """``text`` makes p, which is added to the looked-up words; [B, T, F] or [T, F] of it is known.

    Eq. 5 with ε → 0: R = p ∘ m.
    """
    feeds: dict[str, Array] = {k: more.pop(k) for k in ("mask", "positions") if k in more}

    def expected() -> dict[tuple[str, int, str], Array]:
        mine = solved(Layer(embedded() + rows))
        return {(kind, 0, "table"): rows * mine.m_x}

    return Case(f"{text}  e = Add(x, p)  {layer()}", expected, more, feeds)


def counted(real_tokens: Array) -> Array:
    """1, 2, … for the tokens that are there."""
    return np.array([[row[: t + 1].sum() for t in range(T)] for row in real_tokens])


def stretched(table: Array) -> Array:
    """Twice as many rows, each place between the two next to it (edges repeated)."""
    centres = (np.arange(2 * len(table)) + 0.5) / 2 - 0.5
    columns = [np.interp(centres, np.arange(len(table)), column) for column in table.T]
    return np.stack(columns, axis=1)


def waves() -> Array:
    angles = PLACE * wide(frequencies(F // 2))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


COUNT = "n = CumSum(m, single)  nm = Mul(n, m)  "
TABLES = {
    "shifted by two, counted from the mask": added(
        COUNT.replace("m,", "mask,").replace(" m)", " mask)")
        + "o = Sub(nm, i1)  w = Add(o, i2)  p = Gather(table, w)",
        "learned",
        wide(TABLE)[counted(MASK) * MASK + 1],
        table=TABLE,
        mask=MASK,
    ),
    "counted from what is no padding": added(
        "q = Equal(ids, pad)  t = Not(q)  m = Cast <to=7> (t)  "
        + COUNT
        + "w = Add(nm, pad)  p = Gather(table, w)",
        "learned",
        wide(TABLE)[counted(IDS != PAD) * (IDS != PAD) + PAD],
        table=TABLE,
    ),
    "given as positions": added(
        "p = Gather(table, positions)",
        "learned",
        wide(TABLE)[:T],
        table=TABLE,
        positions=np.tile(np.arange(T), (B, 1)),
    ),
    "stretched in the graph": added(
        """a = Transpose <perm=[0, 2, 1]> (short)
        b = Resize <mode="linear", coordinate_transformation_mode="half_pixel"> (a, , , sizes)
        p = Transpose <perm=[0, 2, 1]> (b)""",
        "learned",
        stretched(wide(TABLE)[: T // 2]),
        short=TABLE[None, : T // 2],
        sizes=ints(1, F, T),
    ),
    "positions and the one token type in one initializer": added(
        "p = Identity(folded)", "learned", wide(TABLE[:T] + TABLE[T]), folded=TABLE[:T] + TABLE[T]
    ),
    "sinusoids": added(
        PLACES.replace("_", "") + "a = Mul(col, w)  s = Sin(a)  c = Cos(a)  "
        "p = Concat <axis=-1> (s, c)",
        "sinusoidal",
        waves(),
        w=frequencies(F // 2),
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_added_to_the_input(name: str) -> None:
    check(TABLES[name])


# ------------------------------------------------------------------------- attention scores


def scored(
    text: str,
    extra: Scores,
    expected: Callable[[Layer], dict[tuple[str, int, str], Array]],
    weights: Mapping[str, Array],
    feeds: Mapping[str, Array] | None = None,
) -> Case:
    """One layer whose scores s have something added, which makes them z."""
    return Case(
        "e = Identity(x)  " + layer(scores=text),
        lambda: expected(solved(Layer(embedded(), extra=extra))),
        weights,
        feeds or {},
    )


def biased(kind: str, text: str, bias: Array, **weights: Array) -> Case:
    """A bias [H, i, j] or [B, H, i, j]: R = bias ∘ m (ε-rule), query and key half each.

    Slopes are counted from the query: R = (bias_ij − bias_ii) ∘ m.
    """
    hidden = np.where(np.tri(T, dtype=bool), 0, -1e9) if "causal" in text else 0
    feeds: dict[str, Array] = {k: weights.pop(k) for k in ("mask",) if k in weights}

    def expected(mine: Layer) -> dict[tuple[str, int, str], Array]:
        counted = bias
        if kind == "alibi":
            whole = np.broadcast_to(bias, mine.m_scores.shape)
            counted = whole - np.diagonal(whole, axis1=-2, axis2=-1)[..., None]
        parts = mine.shared(counted * mine.m_scores)
        return {(kind, 0, part): r for part, r in parts.items()}

    return scored(text, lambda q, k: bias + hidden, expected, weights, feeds)


SLOPES = np.array([0.5, 0.125], np.float32)
#: i − j
AHEAD = np.subtract.outer(np.arange(T), np.arange(T))
NEAR = real(7, H, seed=63)
FAR = np.clip(AHEAD, -3, 3) + 3
CAUSAL = np.where(np.tri(T, dtype=bool), 0, -1e9).astype(np.float32)
KEYS = (counted(MASK) - 1) * MASK

BIASES = {
    "ALiBi by distance, both ways": biased(
        "alibi",
        PLACES
        + """row_ = Unsqueeze(places_, i0)  d_ = Sub(row_, col_)  far_ = Abs(d_)
        b_ = Mul(far_, slopes)  z_ = Sub(s_, b_)""",
        -SLOPES[:, None, None] * np.abs(AHEAD),
        slopes=SLOPES[:, None, None],
    ),
    "ALiBi with a causal mask": biased(
        "alibi",
        "b_ = Add(alibi, causal)  z_ = Add(s_, b_)",
        -SLOPES[:, None, None] * AHEAD,
        alibi=-SLOPES[:, None, None] * AHEAD.astype(np.float32),
        causal=CAUSAL,
    ),
    "ALiBi counted from the mask": biased(
        "alibi",
        """n_ = CumSum(mask, single)  o_ = Sub(n_, i1)  w_ = Mul(o_, mask)  f_ = Cast <to=1> (w_)
        u_ = Unsqueeze(f_, i12)  b_ = Mul(u_, slopes)  b1_ = Add(b_, causal)  z_ = Add(s_, b1_)""",
        SLOPES[:, None, None] * KEYS[:, None, None, :],
        slopes=SLOPES[:, None, None],
        causal=CAUSAL,
        i12=ints(1, 2),
        mask=MASK,
    ),
    "buckets of distances": biased(
        "relative_bias",
        """row_ = Unsqueeze(counted, i0)  col_ = Unsqueeze(counted, i1)  d_ = Sub(col_, row_)
        c_ = Clip(d_, low, high)  w_ = Add(c_, high)  g_ = Gather(near, w_)
        b_ = Transpose <perm=[2, 0, 1]> (g_)  z_ = Add(s_, b_)""".replace("c_", "cl_"),
        wide(NEAR)[FAR].transpose(2, 0, 1),
        counted=np.arange(T),
        low=ints(-3).reshape(()),
        high=ints(3).reshape(()),
        near=NEAR,
    ),
}


@pytest.mark.parametrize("name", BIASES)
def test_biases_of_scores(name: str) -> None:
    check(BIASES[name])


REACH = 7
RELATIVE = real(2 * REACH + 1, D, seed=64)
PICKED = np.clip(AHEAD, -REACH, REACH) + REACH  # the row of i − j


def test_relative_keys_and_queries() -> None:
    """q·r[i − j] + k·r[i − j]: half of both products, which query and key share."""
    rows = wide(RELATIVE)[PICKED]
    terms = {"bhid,ijd->bhij": "q_", "bhjd,ijd->bhij": "k_"}
    text = "pos = Gather(rel, picked)  " + "  ".join(
        f'e{k}_ = Einsum <equation="{equation}"> ({name}, pos)'
        for k, (equation, name) in enumerate(terms.items())
    )

    def extra(q: Array, k: Array) -> Array:
        both = (np.einsum(e, a, rows) for e, a in zip(terms, (q, k), strict=True))
        return np.asarray(sum(both))

    def expected(mine: Layer) -> dict[tuple[str, int, str], Array]:
        parts = mine.shared(0.5 * extra(mine.q, mine.k) * mine.m_scores)
        summed = {part: r.sum(axis=2, keepdims=True) for part, r in parts.items()}
        return {("disentangled", 0, part): r for part, r in summed.items()}

    check(
        scored(
            text + "  a_ = Add(s_, e0_)  z_ = Add(a_, e1_)",
            extra,
            expected,
            {"rel": RELATIVE, "picked": PICKED},
        )
    )


def test_content_to_position_and_position_to_content() -> None:
    """Queries pick from q·k_r, keys from k·q_r: half of what each picks is caught at its place."""
    tables = {
        "keys": real(H, D, 2 * REACH + 1, seed=65),
        "queries": real(H, D, 2 * REACH + 1, seed=66),
    }
    to_keys, to_queries = (wide(table) for table in tables.values())

    def c2p(q: Array) -> Array:
        return np.stack(
            [np.einsum("bhd,hdj->bhj", q[:, :, i], to_keys[:, :, PICKED[i]]) for i in range(T)],
            axis=2,
        )

    def p2c(k: Array) -> Array:
        return np.stack(
            [
                np.einsum("bhd,hdi->bhi", k[:, :, j], to_queries[:, :, PICKED[:, j]])
                for j in range(T)
            ],
            axis=3,
        )

    def expected(mine: Layer) -> dict[tuple[str, int, str], Array]:
        kept = (c2p(mine.q) * mine.m_scores).sum(axis=(1, 3))
        kept += (p2c(mine.k) * mine.m_scores).sum(axis=(1, 2))
        return {("disentangled", 0, "bias"): 0.5 * kept[..., None]}

    check(
        scored(
            """size_ = Shape(s_)  pick_ = Expand(picked, size_)  turn_ = Expand(mirrored, size_)
            c0_ = MatMul(q_, keys)  c2p_ = GatherElements <axis=3> (c0_, pick_)
            d0_ = MatMul(k_, queries)  d1_ = GatherElements <axis=3> (d0_, turn_)
            p2c_ = Transpose <perm=[0, 1, 3, 2]> (d1_)
            a_ = Add(c2p_, p2c_)  z_ = Add(s_, a_)""",
            lambda q, k: c2p(q) + p2c(k),
            expected,
            {"picked": PICKED, "mirrored": PICKED.T.copy(), **tables},
        )
    )
