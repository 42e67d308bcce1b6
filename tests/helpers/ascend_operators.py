"""What MindSpore 2.10's package and documentation say, without a device, of operators that Ascend computes slowly or within limits.

The AI cores compute tensors. What they cannot goes to the chip's few general-purpose cores, the AI CPU (AICPU), for which the AI
cores wait.
"""
import re
from pathlib import Path

# Operators that MindSpore hands to kernels of its own for the AI CPU: its converter to CANN calls them Cust<operator>.
CONVERTER = Path("lib/plugin/ascend/libmindspore_ascend_res_manager.so")
ON_AI_CPU = frozenset("""
    AdaptiveAvgPool2D AdaptiveAvgPool2DGrad AdaptiveAvgPool3d AdaptiveAvgPool3dGrad AdaptiveMaxPool2dGrad AdaptiveMaxPool3d
    AdaptiveMaxPool3dGrad AffineGrid AffineGridGrad ArgMax BartlettWindow BatchNormGradGrad BesselI0 BlackmanWindow
    CSRSparseMatrixToSparseTensor Cauchy CholeskyInverse CholeskySolve Coalesce ConcatOffset Correlate CropAndResize
    CropAndResizeGradBoxes CropAndResizeGradImage DCT DCTN Diagonal Dropout2D Dropout3D Eig EnvironCreate EnvironDestroyAll
    EnvironGet EnvironSet Eps Expand FFT FFT2 FFTFreq FFTN FFTOrtho FFTShapeCopy FFTShift FFTWithSize
    FractionalMaxPool3DGradWithFixedKsize FractionalMaxPool3DWithFixedKsize FusedSparseAdam FusedSparseFtrl FusedSparseLazyAdam
    FusedSparseProximalAdagrad Gamma GatherDGradV2 Gcd GenerateEodMaskV2 Geqrf HFFT HFFT2 HFFTN HammingWindow Heaviside Hypot
    IDCT IDCTN IFFT IFFT2 IFFTN IFFTShift IHFFT IHFFT2 IHFFTN IRFFT IRFFT2 IRFFTDouble IRFFTN Igamma Im2col IndexFill IndexPut
    LayerNormGradGrad Lcm Lgamma LinearSumAssignment LogNormalReverse LogSpace LogUniformCandidateSampler LogicalXor Logit
    LstsqV2 LstsqV2Grad LuSolve LuUnpack LuUnpackGrad MaskedSelectGrad MatrixExp MatrixLogarithm MaxPool3DGradWithArgmax
    MaxPool3DWithArgmax MaxUnpool2D MaxUnpool2DGrad MaxUnpool3D MaxUnpool3DGrad MultiMarginLoss MultiMarginLossGrad
    MultilabelMarginLossGrad Multinomial Mvlgamma MvlgammaGrad NoRepeatNGram Orgqr Padding PdistGrad Poisson Polar Polygamma
    RFFT RFFT2 RFFTFreq RFFTN RandomCategorical RandomChoiceWithMask RandomPoisson RandomShuffle RandomUniformInt Randperm Real
    ResizeBicubic Sinc SliceGrad SolveTriangular SolveTriangularGrad StandardLaplace TopKRouter TopPRouter TraceGrad TraceV2
    TraceV2Grad TrilIndices TriuIndices
""".split())
# By operator, what is wrong with it; the last ones, of which data decides the shapes, make the host wait and compile again.
LIMITS = {
    **dict.fromkeys(ON_AI_CPU, "runs on the AI CPU"),
    "NMSWithMask": "takes at most 2,864 boxes",
    "TopK": "runs on the AI CPU where it does not sort",
    "Sort": "may lose accuracy in float32",
    "Conv2D": "has groups only as depthwise convolution",
    "Tile": "takes at most 8 dimensions",
    **dict.fromkeys(("MaskedSelect", "NonZero", "Unique", "UniqueConsecutive", "Where"), "has an output of unknown shape")}


def in_converter(package: Path) -> set[str]:
    """What ON_AI_CPU lists, from an installed MindSpore."""
    return {name.decode() for name in re.findall(rb"\0Cust([A-Z][A-Za-z0-9]+)(?=\0)", (package / CONVERTER).read_bytes())}
