"""The names of the methods in their order, without torch, so that the command line can list them at once."""

NAMES = (
    *("grad-cam", "hires-cam", "grad-cam++", "layer-cam", "xgrad-cam", "score-cam", "ablation-cam", "eigen-cam"),
    *("saliency", "smooth-grad", "input-x-gradient", "integrated-gradients", "expected-gradients"),
    *("guided-backprop", "guided-grad-cam", "deconvolution", "deep-lift", "occlusion", "rise", "lrp", "random"),
)
