"""An open list of first names, and made-up names for everyone else's."""

from random import Random

_TEXT = """
Aaron Abby Ada Adam Adele Adrian Agnes Aisha Alan Albert Alejandro Alex Alexis Alfred Ali Alice
Alina Allison Amanda Amber Amelia Amir Amy Ana Andre Andrea Andrew Angela Anita Ann Anna Anthony
Antonio April Arthur Asha Audrey Audrie Barbara Beatrice Ben Bernard Beth Betty Bianca Bill Bob
Bonnie Brandon Brenda Brian Bruce Caleb Camila Carl Carla Carlos Carmen Carol Caroline Catherine
Cecilia Charles Charlotte Chen Chloe Chris Christie Christine Clara Claire Colin Connor Crista
Cynthia Daisy Dale Dan Daniel Daphne David Dawn Dean Deborah Delbert Delfina Denise Dennis Derek
Diana Diego Dominic Donald Donna Doris Dorothy Douglas Dylan Earl Eddie Edith Edward Elaine Elanor
Elena Eli Elias Elisa Elizabeth Ella Ellen Elsie Emil Emily Emma Eric Erika Ernest Esther Ethan
Eugene Eva Evan Evelyn Faith Farid Fatima Felix Fernando Fidel Fiona Fletcher Flora Frances Frank
Fred Gabriel Gail George Georgia Gerald Gina Glenn Gloria Grace Graham Greg Greta Hannah Hans
Harold Harriet Harry Hassan Hazel Heather Hector Helen Helene Henry Herbert Holly Hugh Hugo Ian
Ibrahim Ida Igor Ingrid Irene Iris Isaac Isabel Ivan Ivy Jack Jacob Jade James Jamey Jamie Jan
Jane Janet Jason Jasmine Jay Jean Jeff Jennifer Jeremy Jerry Jesse Jessica Jill Jim Joan Joel John
Jonah Jordan Jose Joseph Josh Joy Joyce Juan Judith Julia Julian June Justin Karen Karim Karl Kate
Katie Keith Kelly Ken Kenneth Kevin Kim Kristian Kyle Lars Laura Lauren Lea Lee Lena Leo Leon
Leonard Leslie Levi Lila Lily Linda Lisa Liz Logan Lola Lorine Louis Louise Lucas Lucy Luis Luke
Lydia Mabel Madison Malik Manuel Marco Margaret Maria Marie Marina Mario Mark Marta Martha Martin
Mary Mason Matthew Maya Megan Melissa Mia Michael Michaela Michelle Miguel Miles Millicent Mina
Miriam Mohamed Molly Monica Morgan Nadia Nancy Naomi Natalie Nathan Neil Nia Nicholas Nicole Nina
Noah Nora Norma Oliver Olga Olive Olivia Omar Oscar Otto Owen Pablo Pamela Patricia Patrick Paul
Paula Pedro Peggy Penny Peter Phil Phoebe Phyllis Priya Quentin Rachel Ralph Ramon Raymond Rebecca
Rita Robert Robin Rosa Rose Roy Ruby Russell Ruth Ryan Sal Sally Sam Samantha Samuel Sandra Sara
Sarah Scott Sean Sharon Sheila Sherrie Shirley Simon Sofia Sonia Sophie Stella Stephen Steve
Stuart Susan Sylvia Tamara Tamika Tanya Tara Ted Teresa Theo Theresa Thomas Tim Tina Todd Tom Tony
Tracy Tyler Uma Vera Vernon Victor Victoria Vincent Vina Viola Virginia Wade Walter Wanda Wayne
Wendy Will William Yara Yasmin Yusuf Yvonne Zachary Zoe
"""
NAMES = _TEXT.split()

_ONSET_TEXT = "b c ch cl d f fl g gr h j k kr l m n p ph r s sh st t th tr v w y z"
_VOWEL_TEXT = "a e i o u a e i o a e ee ai ia ie ea au"
_ONSETS, _VOWELS = _ONSET_TEXT.split(), _VOWEL_TEXT.split()
_CODAS = ["", "", "", "l", "n", "r", "s", "m", "d", "tt", "nd", "ll", "nn", "x", "ck", "ne", "lle"]


def made_up_name(rng: Random) -> str:
    """A pronounceable name of two or three syllables."""
    text = "" if rng.random() < 0.8 else rng.choice("aeiou")
    for _ in range(rng.choices((1, 2, 3), (1, 6, 3))[0]):
        text += rng.choice(_ONSETS) + rng.choice(_VOWELS)
        if rng.random() < 0.3:
            text += rng.choice("lnrsm")
    return (text + rng.choice(_CODAS)).capitalize()


def draw_names(rng: Random, count: int) -> list[str]:
    """Different names, about two in five of them made up."""
    names: list[str] = []
    while len(names) < count:
        name = made_up_name(rng) if rng.random() < 0.4 else rng.choice(NAMES)
        if name not in names:
            names.append(name)
    return names
