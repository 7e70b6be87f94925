"""The embedding of a detector on frozen encoders, and what its prototypes are fitted to, from stored features."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from faceauth.lab.evaluation.prototypes import EmbeddedSet
from faceauth.lab.training.assemble import Projection, SwapRule
from faceauth.lab.training.frozen import Examples, FoldKey, Heads, Prepared, mean_heads
from faceauth.model_file import ModelCard, Outputs

EMBEDDING = 64  # values, at most
COMPONENTS = 400  # principal components that discriminants are taken of
KNOWN_BY = 2  # first training views that prototypes know a source by: as it is, and edited and saved again


def projection(prepared: Prepared, found: Examples, allowed: npt.NDArray[np.bool_] | None = None) -> Projection:
    """Discriminants of the sources, and the sources' logits: linear discriminant analysis of training views.

    The features are standardised and reduced to their first principal components before; the embedding's axes have
    unit variance within sources. `allowed` (rows,) says which rows may take part, all by default.
    """
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    split, source, label = (prepared.column(name)[found.row] for name in ("split", "source", "label"))
    chosen = np.isin(found.view, prepared.config.views.train) & (split == "train") & (label != "edited")
    chosen &= True if allowed is None else allowed[found.row]
    features = found.features[chosen].astype(np.float32)
    mean, spread = features.mean(axis=0), features.std(axis=0) + np.float32(1e-3)
    features = (features - mean) / spread
    pca = PCA(
        min(COMPONENTS, *(n - 1 for n in features.shape)), svd_solver="randomized", iterated_power=2, random_state=0
    ).fit(features)
    reduced = pca.transform(features)
    names = np.unique(source[chosen])
    of_source = LinearDiscriminantAnalysis(
        solver="eigen", shrinkage="auto", priors=np.full(len(names), 1 / len(names))
    ).fit(reduced, source[chosen])
    axes = of_source.scalings_[:, : min(EMBEDDING, len(names) - 1)]
    weight = (pca.components_.T @ axes) / spread[:, None]
    bias = -(mean @ weight) - pca.mean_ @ (pca.components_.T @ axes)
    embedding = reduced @ axes
    means = np.stack([embedding[source[chosen] == name].mean(axis=0) for name in names])
    return Projection(
        weight.astype(np.float32), bias.astype(np.float32), means.T.astype(np.float32),
        (-0.5 * (means**2).sum(axis=1)).astype(np.float32), tuple(names.tolist()),
    )  # fmt: skip


def outputs_of(
    prepared: Prepared, found: Examples, card: ModelCard, projected: Projection, heads: Mapping[FoldKey, Heads],
    rule: SwapRule,
) -> EmbeddedSet:  # fmt: skip
    """What the shipped model and those of the first seed's folds say of the train and test images.

    `projected` is the shipped model's; the heads are of the deal by kind, and their mean is the shipped model's.

    A fold's projection is made without the kinds that the fold holds out, and its card lacks their sources, so that
    `unknown` is fitted on generators that had no part in the embedding.
    """
    names = prepared.config.views.train[:KNOWN_BY]
    index = {pair: i for i, pair in enumerate(zip(found.row.tolist(), found.view.tolist(), strict=True))}
    usable = [
        i for i, row in enumerate(prepared.rows)
        if row.split in ("train", "test") and row.label != "edited" and all((i, view) in index for view in names)
    ]  # fmt: skip
    features = found.features[[index[i, view] for i in usable for view in names]].astype(np.float32)
    cards, outputs = [card], [_outputs(features, projected, mean_heads(list(heads.values())), rule, len(names))]
    for fold in range(prepared.config.folds):
        key = FoldKey("kind", prepared.config.seeds[0], fold)
        of_fold = projection(prepared, found, prepared.may_fit(key))
        labels = tuple(card.labels[card.sources.index(name)] for name in of_fold.names)
        cards.append(replace(card, sources=of_fold.names, labels=labels))
        outputs.append(_outputs(features, of_fold, heads[key], rule, len(names)))
    rows = tuple(prepared.rows[i] for i in usable)
    return EmbeddedSet(rows, np.array([row.split for row in rows]), tuple(cards), tuple(outputs))


def _outputs(
    features: npt.NDArray[np.float32], projected: Projection, heads: Heads, rule: SwapRule, views: int
) -> Outputs:
    embedding = features @ projected.weight + projected.bias
    logits = embedding @ projected.sources + projected.sources_bias
    given, embedded = (np.asarray(v, np.float32).reshape(-1, views, v.shape[1]) for v in (logits, embedding))
    logit = rule(heads.generated(features), heads.swapped(features))
    return Outputs(np.asarray(logit, np.float32).reshape(-1, views), given, embedded)
