"""English words that any text may use, so that their absence from the documents says little."""

_ASKING = """
abbreviation abbreviations about according acronym acronyms answer answers compare compared comparison contrast define
defined defines definition definitions describe described describes description detail details differ difference
differences different discuss document documents elaborate example examples expand explain explained explains
explanation find give given gives guide help information know list mean meaning meanings means mention mentioned
mentions outline overview passage passages please question questions quote quotes say says show shown shows stand
stands summarise summarize summary tell text texts topic
"""
_GENERAL = """
able accept accepted achieve achieved act action actually add added advantage advantages affect affected affects age
ago agree allow allowed allows almost already although always amount answer anyone appear appeared appears apply
approach area areas arrive ask asked attempt author authors available average avoid away back bad base based basic
basis became become becomes began begin begins behave behavior behaviour belief believe believed belong benefit
benefits best better big body book born bring brought build built business buy call called calls came capable carry
case cases cause caused causes central certain chance change changed changes check choice choose chose city claim
claimed claims class clear close come comes coming common company complete completed concept concern condition
conditions connect consider considered consist consists contain contained contains continue control correct cost costs
could country create created creates creating current date day days deal decide decided decrease decreased decreases
deep depend depends design designed determine develop developed development die died difficult direct direction
discover discovered do does doing done earlier early easy effect effective effects either element end ended enough
ensure entire equal especially establish established event ever every everyone evidence exact exactly exist exists
experience fact fail failed fails fall false far fast faster fastest father feature features feel few field figure
final finally first fit five follow followed following follows force form formed forms found founded four free full
function gain gained general generally get gets getting go goal goes going gone good got great greater greatest group
groups grow grows had half handle happen happened happens happy hard has have having head hear held helped helps high
higher highest history hold holds home hour hours house how however human idea ideas identify important improve
improved improves include included includes including increase increased increases indicate influence inside instead
intend interest introduce introduced invent invented involve involved issue issues job join keep keeps kept key kind
kinds knew known knows lack land language large larger largest last late later lead leader leads learn learned least
leave led left less let level levels lie life like likely line little live lived lives local locate located location
long longer longest look looks lose lost lot low lower lowest made main mainly major make makes making man many mark
matter may maybe measure measured member members method methods might mind minute modern moment money month months
more most mother move moved much must name named names nation national natural nature near nearly necessary need
needed needs never new next nine none normal normally note noted nothing number numbers object occur occurred occurs
offer offered often old older oldest one only open opinion opposite option options order origin original originally
other others otherwise outside own owned paid part particular parts pass past pay people per percent percentage
perform performed period person phrase place placed places plan play played plays point points popular possible power
practice predict prefer present presented prevent previous primary principle probably problem problems process produce
produced produces product property propose proposed prove provide provided provides public publish published purpose
put quality quantity quick quickly quite range rate rather reach reached read ready real really reason reasons recent
recently recommend recommended reduce reduced reduces refer referred refers region related relation relationship
release released rely remain remained remains remember remove removed replace replaced report reported represent
represented represents require required requires research responsible rest result resulted results return right rise
role rule rules run runs said same saw scale second see seem seems seen sell send sense separate serve served set
seven several shape share short shortest should side sign significant similar simple simply since single situation six
size slow slower small smaller smallest social solution solve some something sometimes soon sort source speak special
specific spend split spread stage start started starts state stated states stay step steps still stop stopped story
strong structure study style subject succeed such suffer suggest suggested support supported supports suppose sure
system systems take taken takes taking task tasks team ten term terms test tested than thing things think third
thought three time times title today together told took top total toward town true try turn turned two type types
typical typically understand unit upon usage use used useful user users uses using usual usually value values variety
various version very view visit wait want wanted war was way ways week well went were whether whole why wide will win
within without woman won word words work worked working works world worse worst worth would write writer written wrong
wrote year years yes yet young zero
"""

# They ask; they are not asked about.
ASKING = frozenset(_ASKING.split())

# Verbs, adjectives and nouns so general that another word may well stand for them in the documents.
COMMON = ASKING | frozenset(_GENERAL.split())
