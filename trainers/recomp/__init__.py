"""Train RECOMP's compressors: labels, extractive encoder, abstractive summaries."""
