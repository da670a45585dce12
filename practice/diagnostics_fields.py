"""The fields of Numerai's diagnostics: numerapi 3.1.1 queries all of them."""

from __future__ import annotations

from itertools import product

_BY_ERA = [
    "examplePredsCorr",
    "validationAlpha",
    "validationBmc",
    "validationChurn",
    "validationCorr",
    "validationCorrV4",
    "validationFeatureCorrMax",
    "validationFeatureNeutralCorr",
    "validationFeatureNeutralCorrV3",
    "validationMmc",
    "validationFncV4",
    "validationIcV2",
    "validationRic",
]
_RATED = [
    f"validation{name}"
    for name in [
        "CorrMean",
        "CorrSharpe",
        "CorrStd",
        "CorrPlusMmcMean",
        "CorrPlusMmcSharpe",
        "CorrPlusMmcSharpeDiff",
        "CorrPlusMmcStd",
        "FeatureCorrMax",
        "FeatureNeutralCorrMean",
        "FeatureNeutralCorrV3Mean",
        "MaxDrawdown",
        "MmcMean",
        "MmcSharpe",
        "MmcStd",
    ]
]
_SERIES = [
    f"validation{score}{figure}"
    for score, figure in product(
        ("CorrV4", "FncV4", "IcV2", "Ric", "Alpha"), ("CorrWExamplePreds", "MaxDrawdown", "Mean", "Sharpe", "Std")
    )
]
_OTHERS = [
    "examplePredsCorrMean",
    "validationBmcMean",
    "validationAdjustedSharpe",
    "validationApy",
    "validationAutocorr",
    "validationCorrCorrWExamplePreds",
    "validationCorrMaxDrawdown",
]


def diagnostics_types() -> str:
    """Return the GraphQL types ``Diagnostics`` and ``EraDiagnostics``, in which every score may be null."""
    figures = [*_RATED, *(f"{name}Rating" for name in _RATED), *_SERIES, *_OTHERS]
    return f"""
    type Diagnostics {{
        id: ID
        status: String
        message: String
        updatedAt: DateTime
        trainedOnVal: Boolean
        erasAcceptedCount: Int
        perEraDiagnostics: [EraDiagnostics!]
        {" ".join(f"{name}: Float" for name in figures)}
    }}

    type EraDiagnostics {{ era: Int!, {" ".join(f"{name}: Float" for name in _BY_ERA)} }}
    """
