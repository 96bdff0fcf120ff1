"""A lens model as a file, for tests that read it and for those that damage it; needs no TensorFlow."""

SENTENCE = """
sky = false
lens = [{ profile = "EPL", tolerance = 1e-4 }, { profile = "Shear" }]
lens_light = [{ profile = "Sersic" }, { profile = "MultiGaussian", sigmas = [0.1, 0.4] }]
source = { profile = "Sersic" }

[priors]
"lens.theta_E" = { log_normal = { median = 1.2, scale = 0.2 } }
"lens.gamma" = 2.0
"light1.e1,e2" = [0.05, 0.1]
"light1.R_sersic" = { uniform = [0.1, 2.0] }
"source.e1,e2" = "lens.e1,e2"
"""
