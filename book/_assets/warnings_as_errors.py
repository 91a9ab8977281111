"""What each kernel of the book runs first: a warning stops the build, so none is printed into a page."""

import warnings

warnings.simplefilter("error")
# tqdm, imported in a notebook, wants a widget for its bars; the book shows none.
warnings.filterwarnings("ignore", message="IProgress not found")
# Jupyter's own, at the end of a kernel.
warnings.filterwarnings("ignore", category=PendingDeprecationWarning, module="ipykernel")
