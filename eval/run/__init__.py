"""One evaluation run: questions, contexts, compression, answers, scores, a folder that can be resumed."""
