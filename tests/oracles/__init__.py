"""Problems whose Hessians are known by other means: dense differentiation and closed forms."""
