"""What is only known by the word before it: names, dates of birth, passports, case and insurance numbers.

No check digit is known for these, with one exception. China's social security number is the resident identity number
(Social Insurance Law, art. 58), so 18 characters of that form after an insurance cue must have its check character.
Local insurance numbers and those of the electronic certificate follow no published national check and are taken by
their cue alone.
"""

from __future__ import annotations

import re

from sluice.rows.deidentify import checksums
from sluice.rows.deidentify.recognizers.rules import Rule, Rules, bare, pattern

_SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆"
    "郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛伍韦申尤毕聂丛焦向柳邢路岳齐沿梅莫庄辛管"
    "祝左涂谷祁时舒耿牟卜詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍位覃霍翁隋植甘景薄单包司柏宁柯阮桂闵解强柴华车冉房边辜吉饶刁瞿戚丘古米池滕晋"
    "苑邬臧畅宫来苟全褚廉简娄盖符奚木穆党燕郎邸冀谈姬屠连郜晏栾郁商蒙计喻揭窦迟宇敖糜鄢冷卓花仇艾蓝都巩稽井练仲乐虞卞封竺冼原官衣楚佟栗匡宗应台巫"
    "鞠僧桑荆谌银扬明沙伏岑习胥"
)
_COMPOUND = "欧阳|司马|上官|诸葛|夏侯|皇甫|东方|尉迟|公孙|慕容|令狐|长孙|宇文|司徒|轩辕|端木|独孤|南宫|西门"
_HAN = "[\u4e00-\u9fff]"
_NAME = rf"(?:(?:{_COMPOUND}){_HAN}{{1,2}}|[{_SURNAMES}]{_HAN}{{1,2}})"
_LONG_NAME = rf"{_HAN}{{1,10}}(?:[·•]{_HAN}{{1,10}})+"
#: What may follow a name in a form that is written without gaps.
_NEXT = (
    r"(?=[\s,.。;、|/()\[\]<>\"'“”]|$|性别|年龄|电话|手机|联系|身份|证件|住院|门诊|病历|病案|床号|床位|科室|科别|出生|民族"
    r"|职业|籍贯|婚姻|住址|地址|单位|诊断|入院|先生|女士|同志|男|女|[0-9A-Za-z])"
)
#: Words of a talk or a complaint that begin like a name; after a bare cue, such as "患者：", they are more likely.
_NO_WORD = (
    "(?!谢谢|高[血热烧度龄危压]|黄[疸色]|白[天色带细]|方[便才法式]|马上|平[时常]|常|时[常候而]|安[静全慰]|应[该当]|万一|关[于节]"
    "|成[人年]|何[时必]|左|向|冷|卓|都|单|计|段|封|全|那)"
)
_NO_NAME = r"(?!性别|年龄|不详|未知|保密|同上|匿名|空白|略|无[\s,。;]|未)"
#: Between a cue and its number stands a word for "number", or a colon, or both.
_JOIN = r"(?:\s{0,2}(?:号码|编号|号|ID|标识)\s{0,4}[:为是#]?|\s{0,4}[:#])\s{0,4}"
_JOIN_EN = r"(?:\s{0,2}(?:numbers?|no\b\.?|id\b|#)\s{0,4}(?:[:#]|is\b)?|\s{0,4}[:#])\s{0,4}"
_DATE = (
    r"(?P<v>(?:19|20)\d{2}[-/.年] ?\d{1,2}(?:[-/.月] ?\d{1,2}日?)?|(?:19|20)\d{2}[01]\d[0-3]\d"
    r"|\d{1,2}[-/. ]\d{1,2}[-/. ](?:19|20)\d{2}"
    r"|(?i:(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]{0,6})\.? \d{1,2},? (?:19|20)\d{2}"
    r"|\d{1,2} (?i:(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]{0,6}) (?:19|20)\d{2})(?!\d)"
)
_CASE = "病历|病案|住院|门诊|急诊|就诊卡?|登记|检查|影像|放射|超声|病理|标本|档案|体检|病人|患者|病员"
_INSURANCE = (
    "医保(?:卡|证|个人|参保|电子凭证)?|医疗保险(?:卡|证|手册)?|社保(?:卡|个人)?|社会保障卡?|参保人?员?|新农合(?:卡|证)?"
)
_INSURANCE_CODE = r"(?P<v>[A-Za-z]{0,4}-?\d[0-9A-Za-z-]{3,26}[0-9A-Za-z])(?![0-9A-Za-z])"
_CASE_CODE = r"(?P<v>[A-Za-z]{0,4}-?\d[0-9A-Za-z-]{2,18}[0-9A-Za-z])(?![0-9A-Za-z])"
_PASSPORT_CODE = r"(?P<v>[A-Za-z]{1,2}\d{6,8}|\d{9})(?![0-9A-Za-z])"
_PEOPLE = "患者|病人|患儿|产妇|家属|监护人|配偶|母亲|父亲|医师|医生|护士|主任|术者|客户|投保人|被保险人|申请人"
_NO_ANSWER = (
    r"(?!(?:Yes|No|Not|Well|Ok|Okay|Hi|Hello|Hey|Thanks?|Good|Doctor|Dr|Sure|Sorry|Please|The|My|It|And|But|So|Oh|What|How"
    r"|When|Where|Why|Who|Is|Are|Can|Could|Do|Does|Did|That|This|There|Right|Maybe|Actually|Also|Because)\b)"
)


def _insured(match: re.Match[str]) -> bool:
    number = bare(match)
    return re.fullmatch(r"\d{17}[\dX]", number) is None or checksums.resident_id(number)


def _numbered(match: re.Match[str]) -> bool:
    return sum(letter.isdigit() for letter in bare(match)) >= 4


RULES = (
    Rule(
        "PERSON_NAME",
        r"姓[\s　]{0,2}名|(?:联系人|签名|签字)[\s　]{0,2}[:：]",
        pattern(
            rf"(?:(?:姓\s{{0,2}}名|联系人|签名|签字)\s{{0,4}}:\s{{0,4}}|姓\s{{0,2}}名\s{{1,4}}){_NO_NAME}"
            rf"(?P<v>{_LONG_NAME}|{_NAME}{_NEXT}|{_HAN}{{2,4}}?{_NEXT})"
        ),
    ),
    Rule("PERSON_NAME", r"姓名", pattern(rf"姓名[为是]?{_NO_NAME}(?P<v>{_LONG_NAME}|{_NAME}{_NEXT})")),
    Rule(
        "PERSON_NAME",
        rf"(?:{_PEOPLE})[\s　]{{0,2}}[:：]",
        pattern(
            rf"(?:{_PEOPLE})\s{{0,2}}:\s{{0,4}}{_NO_WORD}(?P<v>{_LONG_NAME}|{_NAME}(?=[\s,。;、|/()<]|$|[男女][,、。\s]))"
        ),
    ),
    Rule(
        "PERSON_NAME",
        r"(?:患者|病人|患儿|产妇|家属|客户)[\p{Han}·•]{2,10}[,，、 　]\s?[男女]",
        pattern(rf"(?:患者|病人|患儿|产妇|家属|客户){_NO_WORD}(?P<v>{_LONG_NAME}|{_NAME})(?=[,、 ]\s?[男女])"),
    ),
    Rule(
        "PERSON_NAME",
        r"(?i:name|patient|kin|cardholder|contact)\s{0,2}[:：]",
        pattern(
            r"(?:(?i:patient(?:'s)?(?: name)?|(?:full|customer|cardholder|contact|member) name|name of patient"
            r"|next of kin|cardholder|emergency contact)|^ {0,8}[Nn]ame)"
            rf"\s{{0,2}}:\s{{0,4}}{_NO_ANSWER}(?P<v>[A-Z][A-Za-z'-]+(?:(?:, ?| |\^)[A-Z](?:\.|[A-Za-z'-]+)){{1,3}})",
            re.MULTILINE,
        ),
    ),
    Rule(
        "DATE_OF_BIRTH",
        "出生|生日|生于",
        pattern(rf"(?:出生(?:日期|年月日?|时间|于)?|生日|生于)[\s:,是为于]{{0,4}}{_DATE}"),
    ),
    Rule(
        "DATE_OF_BIRTH",
        r"[日号0-9]\s?出生",
        pattern(r"(?P<v>(?:19|20)\d{2}[-/.年] ?\d{1,2}[-/.月] ?\d{1,2}日?) ?出生"),
    ),
    Rule(
        "DATE_OF_BIRTH",
        r"(?i:d\.?o\.?b|birth|born)",
        pattern(
            r"(?:\bd\.?o\.?b\b\.?|date of birth|birth ?dates?|birthday|\bborn(?: on)?)[\s:,]{0,4}" + _DATE,
            re.IGNORECASE,
        ),
    ),
    Rule(
        "MEDICAL_INSURANCE_NUMBER",
        "医保|医疗保险|社保|社会保障|参保|新农合",
        pattern(rf"(?:{_INSURANCE}){_JOIN}{_INSURANCE_CODE}"),
        _insured,
    ),
    Rule(
        "MEDICAL_INSURANCE_NUMBER",
        r"(?i:(?:insurance|member|medicare|medicaid)\W{0,4}(?:policy|card|member|no|num|id|#|[:：]))",
        pattern(
            r"(?:insurance(?: policy| card| member)?|\bmember|\bmedicare|\bmedicaid)" + _JOIN_EN + _INSURANCE_CODE,
            re.IGNORECASE,
        ),
    ),
    Rule("PASSPORT", "护照|通行证", pattern(rf"(?:护照|通行证)(?:{_JOIN}|\s{{0,2}}){_PASSPORT_CODE}")),
    Rule(
        "PASSPORT",
        "(?i:passport)",
        pattern(rf"passport(?:{_JOIN_EN}|\s{{0,2}}){_PASSPORT_CODE}", re.IGNORECASE),
    ),
    Rule(
        "CASE_NUMBER",
        rf"(?:{_CASE})[\s　]{{0,2}}(?:号|编号|ID|标识)",
        pattern(rf"(?:{_CASE})\s{{0,2}}(?:号码|编号|号|ID|标识)\s{{0,4}}[:为是#]?\s{{0,4}}{_CASE_CODE}"),
        _numbered,
    ),
    Rule(
        "CASE_NUMBER",
        r"(?i:mrn|(?:medical\srecord|patient|case|accession|chart|hospital)[\s　]{0,2}(?:no|num|id|#|[:：]))",
        pattern(
            rf"(?:\bMRN(?:{_JOIN_EN}|\s{{1,4}})"
            rf"|(?:medical record|\bpatient|\bcase|\baccession|\bchart|\bhospital){_JOIN_EN}){_CASE_CODE}",
            re.IGNORECASE,
        ),
        _numbered,
    ),
)


def cued() -> Rules:
    """The recognizer of what stands after a cue."""
    return Rules(RULES)
