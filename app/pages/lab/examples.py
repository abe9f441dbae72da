"""Texts to begin with, written for this project: each shows a model hedging, or failing to, and says where to look."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A text, and one sentence on what to watch in it."""

    text: str
    watch: str


EXAMPLES: dict[str, Example] = {
    "Repetition (induction)": Example(
        "Order 4417: two blue lamps, one oak shelf, six brass hooks, a green kettle. Order 4418: two blue lamps, one oak shelf, six brass hooks, a green kettle. Order 4419: two blue lamps, one oak shelf, six brass hooks, a red kettle.",
        "Loss and entropy sink with every repetition, until “red” stands where “green” was: set an entropy neuron to its mean and see how sure the model is then.",
    ),
    "A confident wrong guess": Example(
        "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, breakfast. One, two, three, four, five, six, seven, lamp.",
        "Before “breakfast” and “lamp” the entropy is low and the loss is then high: the model was sure, and wrong. See what more or less hedging would have cost.",
    ),
    "A story that turns": Example(
        "Once upon a time there was a king who had three daughters. The first was clever, the second was kind, and the third was an accountant in Rotterdam.",
        "The frame “and the third was” costs almost nothing; what the third was is open, and no one expects Rotterdam.",
    ),
    "A list": Example(
        "The ingredients are: flour, sugar, butter, eggs, salt, vanilla, baking powder, milk, cinnamon and patience.",
        "The entropy swings with the list: certain of the comma, open about the next ingredient, and “patience” surprises.",
    ),
    "Code": Example(
        "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n    return total / len(values)\n",
        "Syntax is almost free; the choices (the names, the division) stand out in loss and entropy.",
    ),
    "Names": Example(
        "Dr. Amara Lindqvist met Tomasz Okonkwo in Porto. Lindqvist had written to Okonkwo for years, but Okonkwo had never once seen Lindqvist.",
        "A name's pieces are dear the first time and free the second, but its first piece stays open: who comes next is hedged, how to spell it is not.",
    ),
    "A quotation": Example(
        '"I am not late," she said. "The clock is early." He looked at the clock. "The clock," he said, "is late."',
        "After an opening quotation mark anything may be said and the entropy jumps; after the closing one “said” is near.",
    ),
    "A rare word in pieces": Example(
        "The floccinaucinihilipilification of the committee's work was complete; nobody spoke of antidisestablishmentarianism again.",
        "Inside the first long word every piece surprises; in the second the pieces fall into place once “antidis” is there.",
    ),
    "Boilerplate": Example(
        "All rights reserved. No part of this publication may be reproduced, stored in a retrieval system, or transmitted in any form or by any means without the prior written permission of the publisher.",
        "Known by heart: nearly no entropy, until one word departs from the usual wording (“the” after “without”).",
    ),
}
