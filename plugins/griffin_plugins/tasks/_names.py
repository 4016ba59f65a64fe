"""Names of the phone book, 3 to 7 letters each: every first name with every last name."""

FIRST = (
    "Ada Agnes Albert Alice Amos Anna Arne Astrid Basil Bella Bruno Carla Cecil Clara Conrad Cora Dana Daphne David "
    "Dora Edgar Edith Elias Elsa Emil Esther Eva Felix Fiona Flora Frank Gemma George Gloria Greta Gustav Hanna "
    "Harold Hazel Hector Helen Hugo Ida Igor Ines Iris Isaac Ivan Jack Jane Jasper Joan Jonas Judith Julia Karl "
    "Katrin Kenneth Laura Lena Leo Linus Lois Lucas Lydia Mabel Magnus Maria Martin Maud Max Mira Nadia Nathan Nina "
    "Noah Nora Olga Oliver Oscar Otto Paula Peter Philip Quentin Rachel Ralph Rosa Rufus Ruth Samuel Selma Simon "
    "Sofia Stella Tessa Theodor Tobias Ulrich Ursula Vera Victor Vincent Walter Wanda Wilma Xavier Yvonne Zelda"
)

LAST = (
    "Abbot Adler Ames Archer Ashby Bailey Banks Barlow Becker Bell Berg Blake Bowman Brandt Brewer Brook Burke Carter "
    "Clay Cole Cooper Crane Dale Dawson Dean Denton Dixon Drake Duncan Eaton Ellis Emery Fabian Farmer Finch Fisher "
    "Flint Ford Foster Fox Gale Garner Glass Grant Graves Greene Hale Hardy Harris Hart Hayes Hill Holt Hooper Hubert "
    "Hunt Ingram Irving Jarvis Jensen Joyner Keller Kemp King Kirk Knight Lambert Lane Larsen Lee Lind Long Lowell "
    "Marsh Mason Meyer Miller Moore Moss Nash Newton Noble Norris Oakley Olsen Osborn Parker Payne Pierce Pope Porter "
    "Quinn Reed Rhodes Roth Sanders Sawyer Schmidt Shaw Snow Stone Swift Tanner Thorne Turner Vance Vogel Wagner "
    "Walsh Webb Wells West Winter Wolf Wright Yates York Ziegler"
)
