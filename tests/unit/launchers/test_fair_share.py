"""What sshare and sprio print, of Slurm 22.05 and in the ways in which later ones differ."""

from trainwright.launchers.fair_share import (
    FairShare,
    Priority,
    parse_priority,
    parse_share,
    priority_text,
    share_text,
)


def test_the_users_line_of_an_account() -> None:
    text = "root||0.000000|1.000000|\n nlp||0.500000|0.900000|\n  nlp|ann|0.250000|0.125000|0.330000\n  nlp|bob|1|1|1\n"
    share = parse_share(text, "ann")
    assert share == FairShare(account="nlp", fair_share=0.33, shares=0.25, usage=0.125)
    assert share_text(share) == "0.330 of 1 in account nlp (shares 25.0%, used 12.5%)"
    assert parse_share(text, "eve") is None
    assert parse_share("", "ann") is None
    assert parse_share("nlp|ann|parent|nan|0.5\n", "ann") is not None, "a child that shares as its parent does"


def test_the_factors_of_a_waiting_job() -> None:
    priority = parse_priority("1105|105|1000|0|0|0|0\n")
    assert priority == Priority(total=1105, factors={"age": 105, "fair share": 1000})
    assert priority_text(priority) == "1105 = age 105 + fair share 1000"
    both = parse_priority("10|0|10|0|0|0|0\n 30.5|0|10|0|20|0|0\n")
    assert both is not None
    assert both.total == 30
    assert parse_priority("You are not running a supported priority plugin\n") is None
    assert parse_priority("") is None
