"""Why operations have no rule: the one place that says so, for errors, reports and the docs."""

from __future__ import annotations

from palrp_onnx.rules.registry import NO_PATH

#: Reason → operations of the ONNX standard.
_STANDARD = {
    "it reads text": "RegexFullMatch StringConcat StringNormalizer StringSplit",
    "it counts words, which are no vectors of tokens": "TfIdfVectorizer",
    "it reads the bytes of a picture file": "ImageDecoder",
    "the standard had it in opset 1 as an experiment": "Affine Crop DynamicSlice ImageScaler "
    "ParametricSoftplus Scale ScaledTanh",
    "it reads the bits of one number as another": "BitCast",
    "there is no rule yet for products of many factors": "CumProd ReduceProd",
    "there is no rule yet for determinants": "Det",
    "there is no rule yet for grids of places that content moves": "AffineGrid",
    "there is no rule yet for frequencies": "DFT STFT",
    "there is no rule yet for entries that are added up or moved by windows": "Col2Im MaxUnpool",
    "there is no rule yet for images that are read between places, or in boxes, that "
    "another operand chooses": "DeformConv GridSample MaxRoiPool RoiAlign",
    "there is no rule yet for caches that are overwritten at an index": "TensorScatter",
}
#: Reason → operations of ``ai.onnx.ml``.
_TABULAR = {
    "decision trees are steps: no feature has a share of their result": "TreeEnsemble "
    "TreeEnsembleClassifier TreeEnsembleRegressor",
    "classes are found by the votes of pairs": "SVMClassifier",
    "categories are names, not numbers": "LabelEncoder CategoryMapper OneHotEncoder",
    "its input is a map, not a tensor": "DictVectorizer CastMap",
}
#: Reason → operations of ONNX Runtime with a kernel for processors.
_MICROSOFT = {
    "it generates text, step by step, by choices": "BeamSearch GreedySearch Sampling "
    "WhisperBeamSearch",
    "it reads text": "Tokenizer",
    "it yields hashes or choices among words, which pass nothing on": "BifurcationDetector "
    "MurmurHash3 NGramHashMapping NGramRepeatBlock VarlenNGramHashMapping",
    "it finds a path through a table of costs, by comparisons": "DynamicTimeWarping",
    "it finds different numbers, by comparisons": "Unique",
    "it is a sample for developers": "SampleOp",
    "there is no rule yet for distances, or for inverses of matrices": "CDist Inverse",
    "there is no rule yet for images that are read between places, or in boxes, that "
    "another operand chooses": "CropAndResize GridSample",
    "there is no rule yet for windows of an image that another operand moves or "
    "masks": "ConvTransposeWithDynamicPads MaxpoolWithMask UnfoldTensor",
    "it is not rewritten yet": "AttnLSTM BranchwiseRMSNorm CausalConvWithState EngramGate "
    "GatedDeltaNet GatherPacked HyperConnectionPostMix HyperConnectionPreMix "
    "LinearAttention MatMulFpQ4 MatMulInteger16 MoEGroupRouter "
    "MRotaryEmbedding SparseAttention SparseToDenseMatMul VarlenCausalConvWithState "
    "WordConvEmbedding",
}
#: (domain, operation) → why it has no rule, and is not rewritten into operations with one.
REFUSED = {
    (domain, op_type): reason
    for domain, reasons in (
        ("", _STANDARD),
        ("ai.onnx.ml", _TABULAR),
        ("com.microsoft", _MICROSOFT),
    )
    for reason, names in reasons.items()
    for op_type in names.split()
}


def reason(domain: str, op_type: str) -> str:
    """Why an operation on the path of relevance is refused; empty for one that is not."""
    passing_nothing = NO_PATH.get(op_type) if not domain else None
    return passing_nothing or REFUSED.get((domain, op_type), "")
