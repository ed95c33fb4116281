"""A matrix as a table, a row for each pair."""

from collections.abc import Iterable

import pandas as pd
from torch import Tensor


def pair_table(value: str, matrix: Tensor, rows: Iterable[object], columns: Iterable[object]) -> pd.DataFrame:
    """row, column, and the matrix's (R, C) `value` there."""
    pairs = pd.MultiIndex.from_product([rows, columns], names=["row", "column"])
    return pd.DataFrame({value: matrix.flatten().cpu().numpy()}, index=pairs).reset_index()
