"""English text written for the tests: plain narrative, some names and numbers, a little repetition."""

PROSE = """
The river had been rising since Tuesday, and by Friday morning the lower road was gone. Martha Quill stood at the
window of the ferry office with a cup of tea that she had forgotten to drink. "We will not cross today," she said, and
nobody in the room disagreed. There were six of them: two farmers, a teacher, a boy with a bicycle, an engineer from the
county, and Martha herself, who had run the ferry for thirty-one years and had closed it only twice.

The engineer, whose name was Daniel Osei, opened his notebook. The gauge at the old mill had shown 4.2 metres at six
o'clock and 4.6 metres at seven. If it went on like this, the water would reach the pumping station by noon. He said so
quietly, as if he were reading from a list. The teacher asked what would happen then. "Then," said Daniel, "the town
will have water everywhere except in its taps."

They decided to move the pumps. It was not a good plan, but it was the only plan that anyone could think of. The farmers
had a tractor and a long trailer. The boy knew the path behind the churchyard, which was narrow but higher than the
road. Martha had rope, a great deal of rope, and a way of telling people where to stand that did not allow for
discussion. By nine they had taken the first pump off its bolts, and by ten the second. The rain did not stop. The
water reached the door of the pumping station at a quarter past eleven, and found it empty.

In the evening the six of them sat in the school hall with several hundred other people and ate soup. Somebody had
written the height of the river on the blackboard, and every half hour somebody else rubbed it out and wrote a new one.
At eight o'clock the number was 5.1. At half past eight it was 5.1. At nine it was 5.0, and the whole hall cheered as if
a goal had been scored. Martha did not cheer. She was asleep in her chair, with her boots on and an empty cup in
her hand.
"""
