"""Words in Latin script that names and places are told by: the project's own lists, written down for it."""

from __future__ import annotations

# First names that are common in English texts, of several countries. Those that are words too (will, mark, may) are left
# to titles, surnames and lead-ins.
FIRST_NAMES = frozenset(
    """
    aaron abdul abigail adam adrian agnes ahmed aisha alan albert alberto alejandra alejandro alex alexander alexandra alexis
    alfred ali alice alicia alina allison alma alvaro amanda amelia amir amy ana anastasia anders andre andrea andreas andreea
    andrei andres andrew andrzej angela angelica angelo angie anika anita anja ann anna annabelle anne annette annie anthony
    antoine anton antonia antonio arjun arnold arthur arturo asha ashley astrid audrey aurora ava barbara barry bart beatrice
    beatriz becky ben benjamin bernard bernd beth bethany bianca birgit bjorn bob bonnie boris brad bradley brandon brenda
    brendan brian bridget brittany bruce bruno bryan caitlin caitlyn calvin cameron camila camille carl carla carlo carlos
    carmen carol carolina caroline carolyn carrie catherine cecilia cedric charles charlotte chen cheryl chiara chloe chris
    christian christina christine christopher cindy claire clara clare claudia colin connor courtney craig cristina curtis
    cynthia daisuke dale damian dan dana daniel daniela danielle danny daphne darren dave david deborah debra deepak denis
    denise dennis derek diana diane diego dieter dimitri dmitri dmitry dolores dominic don donald donna doris dorothy doug
    douglas duncan dylan edith eduardo edward edwin eileen elaine eleanor elena eli elias elisa elizabeth ella ellen ellie elsa
    emil emilia emily emma enrico enrique eric erica erik erika erin ernest esther ethan eugene eva evan evelyn fatima felix
    fernando fiona florence florian frances francesca francesco francis francisco frank frankie franz fred freddy frederick
    frida fritz gabriel gabriela gabriele gary geoffrey george gerald gerard gertrude gianni gina giovanni giulia gladys glen
    glenn gloria gordon graham greg gregory greta guillermo gunnar gustav hannah hans harold harriet harry hassan heather
    hector heidi heinz helen helena helga henri henrik henry herbert hiroshi holly howard hugo ian ibrahim igor ilse inga ingrid
    irene irina isaac isabel isabella isabelle ivan jack jackie jackson jacob jacqueline jacques jaime jake jakob james jamie
    jan jane janet janice jasmine jason javier jean jeff jeffrey jennifer jenny jens jeremy jerome jerry jesse jessica jesus
    jill jim jimmy joan joanna joanne joao joe joel joerg johan johann johanna john johnny jon jonas jonathan jordan jorge jose
    josef joseph josephine joshua joyce juan juanita judith judy julia julian juliana julie julien julio jurgen justin kaitlyn
    karen karim karin karl karla kate katherine kathleen kathryn kathy katie katja keiko keith kelly ken kenji kenneth kerry
    kevin khalid kim kimberly kirsten klaus knut konrad kristen kristin kristina kumar kurt kyle lara larry lars laura lauren
    laurence laurent laurie lea leah lena leo leon leonard leonardo leonie leslie levi lewis liam lidia liliana lily linda
    lindsay lisa liz lloyd logan loren lorenzo lori louis louisa louise luc luca lucas lucia luciano lucy luigi luis luisa luke
    lydia lynn madeleine madison magdalena maggie magnus malcolm manfred manuel manuela marc marcel marcela marcella marco
    marcos marcus margaret margarita maria mariana marie marilyn marina mario marion marisa marjorie marta martha martin
    martina marvin mary mateo mathias matteo matthew matthias maureen maurice max maximilian maya megan mehmet melanie melissa
    mercedes mia michael michel michele michelle miguel mikael mike mikhail mila milan mildred miranda miriam mitchell mohamed
    mohammad mohammed monica monika monique morgan muhammad murat mustafa nadia nancy naomi natalia natalie natasha nathan
    nathaniel neil nelson nicholas nick nicola nicolas nicole nigel nikola nikolai nina noah noel nora norma norman oksana olaf
    oleg olga oliver olivia oscar oskar otto owen pablo paige pamela paola paolo pascal pat patricia patrick paul paula pauline
    pavel pedro peggy penelope pete peter petra phil philip philippe phillip phyllis pia pierre piotr priya rachel rafael rainer
    raj rajesh ralph ramon randy raphael raul ravi raymond rebecca renata rene reza ricardo richard rick rita rob robert roberta
    roberto robin rodrigo roger roland rolf roman ron ronald rosa rosalind rosemary ross roxanne ruben rudolf rupert russell
    ruth ryan sabine sabrina sally salvatore sam samantha samuel sandra sanjay sara sarah sasha scott sean sebastian serena
    serge sergei sergey sergio seth shannon sharon shaun shawn sheila shelley shirley sidney siegfried silvia simon simone
    sofia sonia sonja sophia sophie stacy stan stanley stefan stefania stefano stella stephan stephanie stephen steve steven
    stuart sue sunil susan susanne suzanne sven svetlana sylvia tamara tania tanya tara tatiana ted teresa terry thea theo
    theodore theresa thomas tiffany tim timothy tina tobias todd tom tommy toni tony tracy travis trevor tyler ulrich ulrike
    ursula valentina valerie vanessa vera veronica veronika victor victoria vijay viktor vincent vincenzo virginia vladimir
    walter wanda warren wayne wendy wilhelm william willem winston wolfgang xavier yasmin yolanda yosef youssef yuki yuri yusuf
    yves yvonne zachary zoe zoltan
    """.split()
)

# Words that are written with a capital and are no person: at a sentence's start, days and months, peoples, trades, products.
COMMON = frozenset(
    """
    a about above access account accounts action active actually add additional address adventure after again agent airport all
    almost alright also although always am american among an and animation answer any anyone anything apartment api app apple apt
    april are area article as ask at atm aug august australian austrian author auto available avenue away baby back bank bar be
    because been before behind being best better between big bill billing birthday black blood blue board body book border bot
    both box boy brazilian bring british brown building bus business but buy by call called calling calls can canadian cancel
    card care cars case cash castle cat catholic cause cautionary cc center central chapter check child children chinese
    christian christmas church circle city class click client close club co code coffee college comedy coming comments community
    company computer conference contact continue corporation corp could council country county course court credit cross cup
    current customer customers daily danish data date day days dear debit dec december decided definitely delivery department
    depot describe desk despite did didn different director directed disney district do doctor does doesn dog doing don done down
    dr drive driver due during dutch each earlier early east eastern easter edition education either email employee end english
    entertainment european even evening event every everyone everything except excuse extension fact factory family fantasy far
    fax feb february federal fee feel few file final finally find fine finnish first fix flat floor follow following food for
    force foreign form founded free french fri friday friend friends from front full fund fuse game general gentlemen german get
    getting girl give given gmail go god going golden good google got government great greek green group guard had hall happy has
    hasn hate have haven having he head health hello help her here hers hey hi high hill him his history hit hobbits hold home
    honda hope horror hospital hotel hour hours house how however human hundred i iban ice id idea if iii immediately important in
    inc include indian industry info information inside institute insurance international internet into invoice iphone ipad is
    islamic island isn issue it italian item its itself jan january japanese jewish job jul july jun june just keep key kids kind
    king kingdom kit know korean labor lady lake land language last late later latest latin law lead leave left legal less let
    letter level library license life like limited line link list little live living llc loan local location log login london long
    look looking lord lost love low ltd machine made magazine mail main make man manager many map march market mart mary master
    matter may maybe me mean meanwhile media meet meeting member men message met mexican microsoft middle midnight might million
    minister minutes miss mission mobile model modern mom moment mon monday money month months moreover morning mortgage most
    mother motors mountain move movie mr mrs ms much museum music muslim must my mystery name names national near need needed
    network never new news next nice night no nobody nokia none north northern norwegian not nothing notice nov november now
    number occupation ocean oct october of off offer office officer often oh ok okay old on once one online only open or orchestra
    order orders original orthodox other others otherwise our out outside over own package page pages paid paper parcel park part
    party pass passport password past pay payment paypal peace people perhaps person personal phone pin place plan play player
    please plus po point police polish pop port portuguese possible post posted pound power president press previous price prime
    prince princess prize pro problem producer product professional professor program project promo provide public put queen
    question questions quick quite radio ready real really reason received recently red reference refund regarding regards
    religion remember reply report request research reset rest restaurant return review right river road rock romance room round
    royal rule russian said sale same samsung sat satellite saturday say says school science sci scottish screen sea search
    season second secretary section security see seen send sent sep sept september service services several shall she ship
    shipping shop short should show shows sign simple sin since sincerely sir sister site six size small smith so social society
    software some somebody someone something sometimes son song songs sony soon sorry south southern spanish speak special spouse
    square ssn st staff stage standard star start state statement states station status still stop store story straight street
    student studio subject such suite summer sun sunday super support sure swedish swiss swift system table take taken talk tax
    tea team tech technology tel telephone television tell ten terrible tesla test thank thanks that the theater their them then
    there therefore these they thing things think third this those though thought thousand three through thu thursday thus ticket
    time times title to today together told tomorrow tonight too top total touch town track trade train transfer transit travel
    trip true trust try trying tue tuesday turkish turn tv twitter two type under unfortunately union unit united university
    unless unlike until unusual up update upon urgent us use used user username using usually valley value version very via
    victims video view village visa visit voice vote wait wal walk wall want war was wasn watch water way we weather web website
    wed wednesday week weekend weekly weeks welcome well were west western what when where whereas whether which while white who
    whole whose why wife wifi will windows wine winter wire wish with within without woman women won wonder word words work
    workers working world worst would wouldn wow wrong yeah year years yellow yes yesterday yet york you young your yours youtube
    zip zone
    """.split()
)

PLACES = frozenset(
    place.strip()
    for place in """
    afghanistan, albania, algeria, andorra, angola, argentina, armenia, australia, austria, azerbaijan, bahamas, bahrain,
    bangladesh, barbados, belarus, belgium, belize, benin, bhutan, bolivia, bosnia, botswana, brazil, brunei, bulgaria,
    burkina faso, burundi, cambodia, cameroon, canada, cape verde, chile, china, colombia, congo, costa rica, croatia, cuba,
    cyprus, czech republic, czechia, denmark, dominican republic, ecuador, egypt, el salvador, england, eritrea, estonia,
    ethiopia, fiji, finland, france, gabon, gambia, germany, ghana, greece, greenland, grenada, guatemala, guinea, guyana, haiti,
    honduras, hong kong, hungary, iceland, india, indonesia, iran, iraq, ireland, israel, italy, ivory coast, jamaica, japan,
    kazakhstan, kenya, kosovo, kuwait, kyrgyzstan, laos, latvia, lebanon, lesotho, liberia, libya, liechtenstein, lithuania,
    luxembourg, macau, macedonia, madagascar, malawi, malaysia, maldives, mali, malta, mauritania, mauritius, mexico, moldova,
    monaco, mongolia, montenegro, morocco, mozambique, myanmar, namibia, nepal, netherlands, the netherlands, new zealand,
    nicaragua, nigeria, north korea, northern ireland, norway, oman, pakistan, palestine, panama, papua new guinea, paraguay,
    peru, philippines, poland, portugal, puerto rico, qatar, romania, russia, rwanda, samoa, san marino, saudi arabia, scotland,
    senegal, serbia, seychelles, sierra leone, singapore, slovakia, slovenia, somalia, south africa, south korea, south sudan,
    spain, sri lanka, sudan, suriname, sweden, switzerland, syria, taiwan, tajikistan, tanzania, thailand, togo, tonga,
    trinidad and tobago, tunisia, turkey, turkmenistan, uganda, ukraine, united arab emirates, united kingdom, united states,
    united states of america, uruguay, uzbekistan, vanuatu, venezuela, vietnam, wales, yemen, zambia, zimbabwe, uk, usa,
    alabama, alaska, arizona, arkansas, california, colorado, connecticut, delaware, florida, hawaii, idaho, illinois, indiana,
    iowa, kansas, kentucky, louisiana, maine, maryland, massachusetts, michigan, minnesota, mississippi, missouri, montana,
    nebraska, nevada, new hampshire, new jersey, new mexico, new york, north carolina, north dakota, ohio, oklahoma, oregon,
    pennsylvania, rhode island, south carolina, south dakota, tennessee, texas, utah, vermont, west virginia, wisconsin,
    wyoming, ontario, quebec, british columbia, alberta, new south wales, queensland, bavaria, catalonia, normandy, tuscany,
    amsterdam, ankara, athens, atlanta, auckland, austin, baltimore, bangkok, barcelona, beijing, belfast, belgrade, berlin,
    birmingham, boston, bratislava, brisbane, bristol, brussels, bucharest, budapest, buenos aires, cairo, calgary, cape town,
    cardiff, chicago, cincinnati, cleveland, cologne, copenhagen, dallas, delhi, new delhi, denver, detroit, dubai, dublin,
    dusseldorf, edinburgh, florence, frankfurt, geneva, genoa, glasgow, gothenburg, guangzhou, hamburg, hanoi, helsinki, houston,
    indianapolis, istanbul, jakarta, jerusalem, johannesburg, kansas city, karachi, krakow, kuala lumpur, kyiv, las vegas,
    leeds, lima, lisbon, liverpool, london, los angeles, lyon, madrid, manchester, manila, marseille, melbourne, memphis, miami,
    milan, minneapolis, montreal, moscow, mumbai, munich, nagoya, nairobi, naples, nashville, new orleans, new york city, nice,
    osaka, oslo, ottawa, oxford, cambridge, paris, perth, philadelphia, phoenix, pittsburgh, porto, prague, reykjavik, riga,
    rio de janeiro, rome, rotterdam, sacramento, salt lake city, san antonio, san diego, san francisco, san jose, santiago,
    sao paulo, seattle, seoul, seville, shanghai, sheffield, shenzhen, sofia, stockholm, st. louis, stuttgart, sydney, taipei,
    tallinn, tampa, tehran, tel aviv, tokyo, toronto, turin, valencia, vancouver, venice, vienna, vilnius, warsaw, washington,
    washington dc, wellington, zagreb, zurich
    """.replace("\n", " ").split(",")
)
