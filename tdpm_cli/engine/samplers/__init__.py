"""Samplers: from x_T at t = T to x_0 at t = 0. One file a sampler, each one pure function:

    sampler(denoise, x_T, times, schedule, noise, *, OPTIONS, **cond) -> x_0

`denoise(x_t, t, **cond)` estimates x_0 [B, *shape]; `times` is [T, ..., 0] from `Schedule.respace`; `noise()` returns a
fresh standard normal [B, *shape]. Each step calls `denoise` once, so the network is called len(times) - 1 times.
Keyword-only arguments are the sampler's options.
"""
