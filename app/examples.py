"""Texts to begin with, written for this project: each shows a model hedging, or failing to."""

EXAMPLES: dict[str, str] = {
    "Repetition (induction)": (
        "Order 4417: two blue lamps, one oak shelf, six brass hooks, a green kettle. Order 4418: two blue lamps, one oak "
        "shelf, six brass hooks, a green kettle. Order 4419: two blue lamps, one oak shelf, six brass hooks, a red kettle."
    ),
    "A confident wrong guess": (
        "Once upon a time there was a king who had three daughters. The first was clever, the second was kind, and the "
        "third was an accountant in Rotterdam."
    ),
    "A list": "The ingredients are: flour, sugar, butter, eggs, salt, vanilla, baking powder, milk, cinnamon and patience.",
    "Code": (
        "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n    return total / len(values)\n"
    ),
    "Names": (
        "Dr. Amara Lindqvist met Tomasz Okonkwo in Porto. Lindqvist had written to Okonkwo for years, but Okonkwo had "
        "never once seen Lindqvist."
    ),
    "A quotation": '"I am not late," she said. "The clock is early." He looked at the clock. "The clock," he said, "is late."',
    "A rare word in pieces": (
        "The floccinaucinihilipilification of the committee's work was complete; nobody spoke of antidisestablishmentarianism "
        "again."
    ),
    "Boilerplate": (
        "All rights reserved. No part of this publication may be reproduced, stored in a retrieval system, or transmitted "
        "in any form or by any means without the prior written permission of the publisher."
    ),
}
