"""What the full name of a parameter, `label.name`, tells of it."""


def is_mass(name: str) -> bool:
    """Whether a parameter of this full name, `label.name`, is one of the mass.

    Example:
        >>> is_mass("lens1.theta_E"), is_mass("shear.gamma1"), is_mass("light.e1")
        (True, True, False)
    """
    return name.split(".")[0].rstrip("0123456789") in ("lens", "shear")
