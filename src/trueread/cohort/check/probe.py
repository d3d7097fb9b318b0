"""Linear probes: what a straight line through a few numbers per image can tell, tested on patients it has not seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from trueread.cohort.check.properties import measure, thumbnails
from trueread.cohort.cohort import Cohort
from trueread.stats import Estimate
from trueread.stats.association import concordance, midranks
from trueread.stats.permutation import Seed

Features = NDArray[np.float32]  # [n,D]

THUMBNAIL, THUMBNAIL_3D = 16, 8  # side in pixels: 256 numbers a channel, volumes 512
COMPONENTS = 32  # of the thumbnails
RIDGE = 0.01  # penalty, as a share of the features' own variance
N_FOLDS = 5
SHRINKAGE = 0.1  # of the discriminant's covariance towards a sphere
SEEN = 3  # rows of a value from which a probe can learn it


def embedding(cohort: Cohort) -> Features:
    """What an image looks like in a few dozen numbers, without a network: float32 [N,D], standardised.

    The first 32 principal components of small thumbnails, and the simple properties. It sees layout, exposure and
    texture and no fine anatomy: what it can read, a network can; what it cannot read, a network may still.
    """
    from sklearn.decomposition import PCA

    side = THUMBNAIL_3D if cohort.is_volume else THUMBNAIL
    pixels = thumbnails(cohort, side=side).reshape(len(cohort), -1)
    n_components = min(COMPONENTS, len(pixels) - 1, pixels.shape[1])
    found = PCA(n_components, svd_solver="covariance_eigh").fit_transform(pixels) if n_components else pixels[:, :0]
    return np.concatenate([standardised(found), normal_scores(measure(cohort).to_numpy())], axis=1)


def standardised(features: NDArray) -> Features:
    """Columns with mean 0 and standard deviation 1; those that hold one value alone become 0."""
    centred = features - features.mean(axis=0)
    spread = centred.std(axis=0)
    scaled = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-6 * np.abs(features).max(axis=0))
    return scaled.astype(np.float32)


def normal_scores(values: NDArray) -> Features:
    """float [n,P] -> the quantiles of a normal distribution at the same ranks, standardised: no outliers, no units."""
    return standardised(ndtri(midranks(values) / (len(values) + 1)))


def patient_folds(clusters: NDArray, *, n_folds: int = N_FOLDS, seed: Seed = 0) -> NDArray[np.int64]:
    """The fold of each row, int64 [n] in 0..n_folds-1, whole patients in one, as many patients in each as can be.

    The labels play no part: permuted labels then meet the same folds, and the comparison is exact.
    """
    groups, codes = np.unique(clusters, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(groups)) % n_folds)[codes]


def told_together(features: NDArray, target: NDArray, clusters: NDArray, *, seed: Seed = 0) -> Estimate:
    """How well all features together tell a target on patients that the probe has not seen: AUROC, or concordance.

    features: float [n,D]. target: float [n], 0 and 1 or grades. clusters: int64 [n].
    A ridge regression is fitted to all folds of patients but one and ranks the images of that one. Only images of the
    same fold are compared: across folds, scores of different fits would rank those lower whose label the fit lacked.
    """
    from sklearn.linear_model import Ridge

    x = standardised(features)
    folds = patient_folds(clusters, seed=seed)
    scores = np.zeros(len(x))
    for fold in np.unique(folds):
        test = folds == fold
        if not test.all():
            ridge = Ridge(alpha=RIDGE * float((~test).sum()), solver="cholesky").fit(x[~test], target[~test])
            scores[test] = ridge.predict(x[test])
    return concordance(scores[:, None], target, clusters, within=folds)[0]


def told_out_of_fold(features: NDArray, codes: NDArray, clusters: NDArray, *, seed: Seed = 0) -> NDArray[np.float64]:
    """Probabilities [n,A] of A values, each row's from a probe that has not seen its patient.

    features: float [n,D]. codes: int64 [n] in 0..A-1, every value in several patients. See `discriminant`.
    """
    found = np.empty((len(codes), int(codes.max()) + 1))
    folds = patient_folds(clusters, seed=seed)
    for fold in np.unique(folds):
        test = folds == fold
        found[test] = discriminant(features[~test], codes[~test], features[test], n_values=found.shape[1])
    return found


def discriminant(seen: NDArray, codes: NDArray, asked: NDArray, *, n_values: int) -> NDArray[np.float64]:
    """Probabilities [m,n_values] for the rows of `asked`, from a linear discriminant fitted to `seen` and `codes`.

    Every value has the same prior, so that a rare one is not passed over. A value with fewer than 3 rows in `seen` has
    probability 0.
    A ridge regression of indicators would do, but for three values in a row it never says the middle one.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    present = np.flatnonzero(np.bincount(codes, minlength=n_values) >= SEEN)
    found = np.zeros((len(asked), n_values))
    if len(present) < 2:
        found[:, present] = 1.0
        return found
    learned = np.isin(codes, present)
    priors = np.full(len(present), 1 / len(present))
    probe = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE, priors=priors)
    probe.fit(seen[learned], codes[learned])
    found[:, present] = probe.predict_proba(asked)
    return found
