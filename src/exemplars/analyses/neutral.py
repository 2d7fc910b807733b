"""Plain prose about nothing in particular: what an edit of a model should leave alone."""

from __future__ import annotations

NEUTRAL = (
    "The ferry leaves the northern pier at a quarter past seven and takes a little under an "
    "hour to cross the bay. Most passengers stay on the lower deck, where it is warm, and read "
    "or sleep until the bell tells them that the island is near. In winter there is only one "
    "crossing a day.",
    "Bread needs four things: flour, water, salt and time. A dough that is left overnight in a "
    "cool place tastes better than one that is hurried, and it is easier to shape. The oven "
    "should be as hot as it can be when the loaf goes in, and cooler for the second half of the"
    " baking.",
    "The old observatory stands on a hill to the east of the town. Its telescope was built in "
    "1884 and can still be used on clear nights, although the lights of the valley have made "
    "faint stars hard to see. Volunteers open the dome to visitors on the first Friday of every"
    " month.",
    "When the river floods, it leaves a thin layer of silt on the fields beside it. Over "
    "centuries this has made the soil deep and dark, and farmers here plant later than their "
    "neighbours but harvest more. The flood of 1953 was the highest that anyone now living has "
    "seen.",
    "She learned to repair clocks from her grandfather, who kept his tools in a cigar box. The "
    "first rule, he used to say, is to write down where every screw came from. The second is to"
    " stop for the day as soon as something does not want to move.",
    "A glacier moves by sliding over its bed and by slowly changing shape under its own weight."
    " Near the surface the ice is brittle and breaks into crevasses; deeper down it flows. "
    "Stones that are frozen into its lowest layer scratch the rock beneath, and the scratches "
    "show which way it went.",
    "The committee met on Tuesday to discuss the new timetable for the library. It was agreed "
    "that the reading room should stay open until nine in the evening during the school year, "
    "and that a second computer should be bought for the catalogue if the budget allows it.",
    "To reach the hut, follow the path along the stream until it meets the forest road, and "
    "turn left. After two kilometres there is a wooden bridge. The climb begins behind it and "
    "takes about an hour and a half; there is no water on the way, so fill your bottles first.",
    "Trade along the coast grew quickly once the harbour had been deepened. Timber and salted "
    "fish went south, and wine, cloth and iron came back. By the end of the century the town "
    "had three shipyards, a bank, and a school of navigation whose teachers were known in many "
    "ports.",
    "Swifts spend almost all their lives in the air. They eat, drink and even sleep while "
    "flying, and land only to breed. In late summer they leave within a few days of each other,"
    " and the sky over the rooftops, which was full of their calls in July, is suddenly quiet.",
    "The piano in the hall had not been tuned for years, but nobody who played it seemed to "
    "mind. The children used it for duets, the choir for its rehearsals, and once a year, at "
    "midsummer, the baker came in after work and played waltzes until it was dark.",
    "An index at the back of a book is a map for readers who know what they want. A good one "
    "lists the words that readers will think of and not only those that the author used, and it"
    " leads from one to the other. Making it takes longer than most people expect.",
)
"""A dozen short paragraphs, written for this purpose."""
