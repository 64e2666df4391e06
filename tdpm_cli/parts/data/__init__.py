"""Data: map-style data sets. A part takes (path or None, raw_shape), has `names` of its classes, and reads
lists of indices: data[[3, 1]] → raw [2, *raw_shape], {"label": int64 [2], "captions": 2 tuples of texts}, each where
there are any. `recognises(path)` in its file says whether it reads what lies there."""
