"""What of a member's numbers is believed: a signature makes none of them true. Pure."""

from collections.abc import Mapping

from dht.records import MemberRecord

AHEAD = 1.25  # times what the next one tells of a block's age, up to which one peer alone is believed
ALL_LISTED = 64  # members below which all holders of every block are listed; in larger swarms some are not
MAX_HOLDERS = 2.0**20  # of a block, that are believed of a swarm in which not all are listed


def believable(records: Mapping[str, MemberRecord]) -> dict[str, MemberRecord]:
    """Return the members' records with what one of them alone says beyond all measure cut down.

    Of a block's age, of which several tell, nobody is believed much more than the next one says: else one record would
    end everybody's training. There are no more holders than members, as long as all members are listed.
    """
    told: dict[str, list[int]] = {}
    for record in records.values():
        for block, age in record.ages.items():
            told.setdefault(block, []).append(age)
    oldest = {block: int(AHEAD * sorted(ages)[-2]) for block, ages in told.items() if len(ages) > 1}
    most = MAX_HOLDERS if len(records) >= ALL_LISTED else float(max(1, len(records)))
    return {peer: _cut(record, oldest, most) for peer, record in records.items()}


def _cut(record: MemberRecord, oldest: Mapping[str, int], most: float) -> MemberRecord:
    """Return a record that tells of no age beyond `oldest` and of no more than `most` holders."""
    ages = {block: min(age, oldest.get(block, age)) for block, age in record.ages.items()}
    crowds = {block: min(holders, most) for block, holders in record.crowds.items()}
    if (ages, crowds) == (record.ages, record.crowds):
        return record
    return record.model_copy(update={"ages": ages, "crowds": crowds})
