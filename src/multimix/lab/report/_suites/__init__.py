"""The page's sections: one for every suite that measured something."""

from multimix.lab.report._suites._sections import Article, Section, sections

__all__ = ["Article", "Section", "sections"]
