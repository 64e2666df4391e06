"""Priors: how x_T is drawn: z → x_T. A part takes (shape, sizes, schedule, network)."""
