from __future__ import annotations

import numpy as np
import openmm
import pytest

from deepcg.potentials.priors import system_tables
from deepcg.potentials.priors.system_forces import suspects, without_bias
from deepcg.runtime.errors import InputError

N = 8
CHAIN = [(i, i + 1) for i in range(N - 1)]
IMPROPER = "k*min(d,2*3.14159-d)^2; d=abs(theta-t0)"


def chain(*extra: openmm.Force) -> openmm.System:
    """Eight atoms in a chain and two ions, with all the parts of a force field."""
    system = openmm.System()
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    torsions, pairs = openmm.PeriodicTorsionForce(), openmm.NonbondedForce()
    for i in range(N + 2):
        system.addParticle(12.0)
        pairs.addParticle(0.1 * (-1) ** i, 0.3, 0.3)
    for i, j in CHAIN:
        bonds.addBond(i, j, 0.15, 2e5)
    for i in range(N - 2):
        angles.addAngle(i, i + 1, i + 2, 1.95, 400.0)
    for i in range(N - 3):
        torsions.addTorsion(i, i + 1, i + 2, i + 3, 3, 0.0, 3.0)
    pairs.createExceptionsFromBonds(CHAIN, 0.8333, 0.5)
    for force in (bonds, angles, torsions, pairs, openmm.CMMotionRemover(), *extra):
        system.addForce(force)
    return system


def metadynamics() -> openmm.Force:
    force = openmm.CustomCVForce("table(phi)")
    phi = openmm.CustomTorsionForce("theta")
    phi.addTorsion(0, 1, 2, 3)
    force.addCollectiveVariable("phi", phi)
    force.addTabulatedFunction("table", openmm.Continuous1DFunction([0, 5, 0], -3.2, 3.2))
    force.setForceGroup(31)
    return force


def held_in_place() -> openmm.Force:
    force = openmm.CustomExternalForce("500*((x-1)^2+y^2+z^2)")
    force.addParticle(2, [])
    return force


def bond(kind: type, *pairs: tuple[int, int], energy: str = "100*(r-0.5)^2") -> openmm.Force:
    force = kind(energy) if kind is openmm.CustomBondForce else kind()
    for i, j in pairs:
        force.addBond(i, j, *([] if kind is openmm.CustomBondForce else [0.5, 100.0]))
    return force


def torsion(*atoms: tuple[int, ...], energy: str = "50*(1-cos(theta-1))") -> openmm.Force:
    force = openmm.CustomTorsionForce(energy)
    for term in atoms:
        force.addTorsion(*term)
    return force


def angle(*atoms: tuple[int, int, int]) -> openmm.Force:
    force = openmm.CustomAngleForce("100*(theta-2)^2")
    for term in atoms:
        force.addAngle(*term)
    return force


def compound(n: int, energy: str, *atoms: list[int]) -> openmm.Force:
    force = openmm.CustomCompoundBondForce(n, energy)
    for term in atoms:
        force.addBond(term)
    return force


def centroids() -> openmm.Force:
    force = openmm.CustomCentroidBondForce(2, "10*distance(g1,g2)^2")
    force.addGroup([0, 1, 2])
    force.addGroup([8])
    force.addBond([0, 1])
    return force


def rmsd() -> openmm.Force:
    return openmm.RMSDForce([openmm.Vec3(0.1 * i, 0, 0) for i in range(N + 2)], [0, 1, 2, 3])


def called(force: openmm.Force, name: str) -> openmm.Force:
    force.setName(name)
    return force


SURE = {
    "metadynamics": (metadynamics, "collective variables"),
    "places": (held_in_place, "places in space"),
    "distance": (lambda: bond(openmm.CustomBondForce, (0, 8)), "not bonded"),
    "ends": (lambda: bond(openmm.HarmonicBondForce, (0, 7)), "not bonded"),
    "ions": (lambda: bond(openmm.CustomBondForce, (8, 9)), "not bonded"),
    "far torsion": (lambda: torsion((0, 1, 5, 6)), "not bonded"),
    "compound": (lambda: compound(2, "distance(p1,p2)", [1, 9]), "not bonded"),
    "centroids": (centroids, "centers of groups"),
    "rmsd": (rmsd, "given positions"),
    "name": (lambda: called(torsion((0, 1, 2, 3)), "phi restraint"), "its name"),
}
UNSURE = {
    "phi": lambda: torsion((0, 1, 2, 3)),
    "angle": lambda: angle((0, 1, 2)),
    "bond": lambda: bond(openmm.CustomBondForce, (1, 2)),
    "five atoms": lambda: compound(5, "dihedral(p1,p2,p3,p4)*dihedral(p2,p3,p4,p5)", [*range(5)]),
    "mixed": lambda: bond(openmm.HarmonicBondForce, (0, 2), (0, 7)),
}


def born() -> openmm.Force:
    force = openmm.CustomGBForce()
    force.addPerParticleParameter("q")
    force.addEnergyTerm("q", openmm.CustomGBForce.SingleParticle)
    for _ in range(N + 2):
        force.addParticle([0.1])
    return force


def repulsion() -> openmm.Force:
    force = openmm.CustomNonbondedForce("strength/r^12")
    force.addGlobalParameter("strength", 1e-9)
    for _ in range(N + 2):
        force.addParticle([])
    return force


PHYSICS = {
    "1-4 pairs": lambda: bond(openmm.CustomBondForce, (0, 3), (1, 4), energy="1e-6/r^12"),
    "Urey-Bradley": lambda: bond(openmm.HarmonicBondForce, (0, 2), (1, 3)),
    "improper": lambda: torsion((1, 0, 2, 3), energy="50*theta^2"),
    "born": born,
    "pairs": repulsion,
    "barostat": lambda: openmm.MonteCarloBarostat(1.0, 300.0),
    "thermostat": lambda: openmm.AndersenThermostat(300.0, 1.0),
    "stretch-bend": lambda: compound(3, "distance(p1,p2)*angle(p1,p2,p3)", [0, 1, 2]),
}


@pytest.mark.parametrize("name", SURE)
def test_a_bias_is_named_and_refused(name: str) -> None:
    make, reason = SURE[name]
    system = chain(make())
    (found,) = suspects(system)
    assert (found.number, found.sure) == (5, True)
    assert reason in found.reason
    with pytest.raises(InputError, match=r"--forces-without .* or --forces-with ") as error:
        without_bias(system, (), (), "x.system.xml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", UNSURE)
def test_what_may_be_a_bias_is_called_so(name: str) -> None:
    (found,) = suspects(chain(UNSURE[name]()))
    assert not found.sure
    assert "may be a bias" in str(found)


@pytest.mark.parametrize("name", PHYSICS)
def test_parts_of_force_fields_are_no_bias(name: str) -> None:
    system = chain(PHYSICS[name]())
    assert suspects(system) == []
    assert without_bias(system, (), (), "x") is system


def test_a_system_of_one_force_has_no_bias() -> None:
    """That of a model whose potential is a function of places."""
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(held_in_place())
    system.addForce(openmm.CMMotionRemover())
    assert suspects(system) == []


def test_torsions_that_the_force_field_lacks_are_its_own() -> None:
    """As where all torsions are of another form than its periodic ones."""
    system = chain()
    kinds = [type(force).__name__ for force in system.getForces()]
    system.removeForce(kinds.index("PeriodicTorsionForce"))
    system.addForce(torsion((0, 1, 2, 3), (1, 2, 3, 4)))
    assert suspects(system) == []


@pytest.mark.parametrize("name", ["CustomCVForce", "31", "group 31", "the bias"])
def test_forces_are_left_out_by_name_kind_or_group(name: str) -> None:
    system = chain(called(metadynamics(), "the bias"))
    bare = without_bias(system, [name], (), "x")
    plain = [type(force).__name__ for force in chain().getForces()]
    assert [type(force).__name__ for force in bare.getForces()] == plain
    assert system.getNumForces() == len(plain) + 1
    assert without_bias(system, (), [name], "x") is system


def test_a_name_of_no_force_is_refused() -> None:
    with pytest.raises(InputError, match=r"no force 'CustomCV'.*did you mean 'CustomCVForce'"):
        without_bias(chain(metadynamics()), ["CustomCV"], (), "x")
    with pytest.raises(InputError, match="both name CustomCVForce"):
        without_bias(chain(metadynamics()), ["31"], ["CustomCVForce"], "x")


def test_one_of_two_biases_that_is_left_is_refused() -> None:
    system = chain(metadynamics(), held_in_place())
    with pytest.raises(InputError, match=r"a force that is .*CustomExternalForce") as error:
        without_bias(system, ["31"], (), "x")
    assert "CustomCVForce" not in str(error.value)
    assert without_bias(system, ["31", "CustomExternalForce"], (), "x").getNumForces() == 5


def test_a_restraint_is_no_bond_of_the_prior() -> None:
    restrained = chain(bond(openmm.HarmonicBondForce, (0, 7)), metadynamics())
    tables, left = system_tables(restrained, range(N))
    plain, none = system_tables(chain(), range(N))
    assert tables["bonds"].atoms.tolist() == plain["bonds"].atoms.tolist()
    assert left == ("HarmonicBondForce", "CustomCVForce")
    assert none == ()


def test_forces_without_a_bias_are_those_of_a_system_that_never_had_it() -> None:
    rng = np.random.default_rng(3)
    places = np.cumsum(rng.normal(0, 0.1, (N + 2, 3)), axis=0)

    def forces(system: openmm.System) -> np.ndarray:
        platform = openmm.Platform.getPlatform("Reference")
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        context.setPositions(places)
        found: np.ndarray = context.getState(forces=True).getForces(asNumpy=True)._value
        return found

    biased = chain(metadynamics(), held_in_place())
    bare = without_bias(biased, ["CustomCVForce", "CustomExternalForce"], (), "x")
    np.testing.assert_array_equal(forces(bare), forces(chain()))
    assert np.abs(forces(biased) - forces(chain())).max() > 1
