"""What bank customers say to a service desk, by queue: the phrases the examples are put together from."""

NAMES = [
    "Li Wei",
    "Ana Ruiz",
    "Tom Baker",
    "Mei Chen",
    "Omar Said",
    "Julia Novak",
    "Priya Nair",
    "Sam Okafor",
]
PLACES = ["the airport", "the market", "a taxi", "the gym", "Lyon", "Hangzhou", "the train", "a hotel"]
DAYS = [
    "yesterday",
    "this morning",
    "on Monday",
    "last night",
    "on Friday",
    "two days ago",
    "today",
    "last week",
]
SHOPS = ["a bookshop", "an online store", "a petrol station", "the bakery", "a phone shop", "the pharmacy"]
PLACES_ZH = ["机场", "超市", "出租车上", "健身房", "火车上", "酒店"]
DAYS_ZH = ["昨天", "今天早上", "星期一", "昨晚", "上周", "前天"]

OPENERS = [
    "",
    "Hello, ",
    "Hi, this is {name}. ",
    "Good morning. ",
    "Dear team, ",
    "Please help: ",
    "Sorry to bother you, ",
    "I have been a customer for {n} years. ",
]
CLOSERS = [
    "",
    " Thank you.",
    " Please answer by {hour} o'clock.",
    " What should I do?",
    " My customer number is {id}.",
    " Best regards, {name}",
    " Can someone look into this?",
    " I am waiting for your call.",
]
OPENERS_ZH = ["", "您好，", "请问，", "你们好，我是老客户。", "麻烦帮忙看一下，"]
CLOSERS_ZH = ["", "谢谢。", "我该怎么办？", "客户号是{id}。", "请尽快回复。"]

# queue name: (English sentences, Chinese sentences). The names differ from the first word on, so that a tiny model
# decides while it still looks at the message, and not in the middle of its answer.
QUEUES: dict[str, tuple[list[str], list[str]]] = {
    "lost_card": (
        [
            "I lost my card in {place} {day}.",
            "my bank card is gone, I think I left it in {place}.",
            "someone stole my wallet with the card {day}.",
            "I cannot find my debit card since {day}.",
            "please block my card, it was stolen in {place}.",
            "my card went missing {day} in {place}.",
        ],
        ["我的银行卡{day}在{place}丢了。", "卡被偷了，请马上挂失。", "我找不到我的银行卡，可能落在{place}。"],
    ),
    "swallowed_card": (
        [
            "the cash machine kept my card {day}.",
            "the ATM near {place} swallowed my card.",
            "my card is stuck inside the cash machine at {place}.",
            "the machine did not give my card back {day}.",
            "the ATM took my card and went dark.",
            "the cash machine at {place} ate my card {day}.",
        ],
        ["取款机{day}吞了我的卡。", "{place}的取款机没有把卡退给我。", "我的卡被机器吞了。"],
    ),
    "forgotten_pin": (
        [
            "I forgot my PIN.",
            "I typed the wrong PIN three times {day}.",
            "how do I get a new PIN for my card?",
            "I do not remember the four digits of my PIN any more.",
            "my PIN is blocked since {day}.",
            "I would like to choose another PIN code.",
        ],
        ["我忘记了取款密码。", "{day}密码输错三次，被锁住了。", "怎样重新设置取款密码？"],
    ),
    "failed_login": (
        [
            "I cannot sign in to the app since {day}.",
            "online banking says my login is invalid.",
            "the app logs me out every time I open it.",
            "the website does not accept my user name {day}.",
            "I never get the text message with the login code.",
            "signing in to online banking fails with an error {day}.",
        ],
        ["{day}开始我登录不了手机银行。", "手机银行一打开就闪退。", "我收不到登录验证码。"],
    ),
    "late_transfer": (
        [
            "my transfer of {amount} euros has not arrived.",
            "I sent {amount} euros {day} and the receiver has nothing yet.",
            "the transfer to {name} is still pending since {day}.",
            "where is the money I transferred {day}?",
            "my payment to {name} is taking far too long to arrive.",
            "a transfer of {amount} euros seems to be stuck.",
        ],
        ["我{day}转账的{amount}元还没有到账。", "转账一直显示处理中。", "对方没有收到我{day}汇的款。"],
    ),
    "wrong_transfer": (
        [
            "I sent {amount} euros to the wrong person.",
            "I made a typing mistake in the account number of a transfer {day}.",
            "please call back my transfer, the receiver is wrong.",
            "I transferred {amount} euros to the wrong account {day}.",
            "I paid {name} twice by mistake, can you reverse one transfer?",
            "the account number I entered {day} was not correct, please recall the money.",
        ],
        ["我{day}把{amount}元转错人了。", "转账时账号填错了，能撤回吗？", "我不小心转错账户。"],
    ),
    "unknown_charge": (
        [
            "there is a charge of {amount} euros from {shop} that I did not make.",
            "I do not recognise a payment to {shop} {day}.",
            "somebody paid {amount} euros at {shop} with my account.",
            "I never bought anything from {shop}, yet {amount} euros are gone.",
            "an unknown payment of {amount} euros appeared {day}.",
            "this purchase at {shop} {day} was not made by me.",
        ],
        ["账单上有一笔{amount}元的消费不是我本人的。", "{day}有一笔陌生的扣款。", "有人盗刷了我{amount}元。"],
    ),
    "missing_refund": (
        [
            "{shop} promised me a refund of {amount} euros and it has not come.",
            "I returned the goods to {shop} {day}, where is my refund?",
            "my refund from {shop} is not on my statement.",
            "I am still waiting for {amount} euros back from {shop}.",
            "the refund that {shop} issued {day} does not show up.",
            "when will the returned purchase of {amount} euros be refunded?",
        ],
        ["商家{day}说已退款，但我没有收到。", "{amount}元的退款什么时候到？", "退货以后一直没有退款。"],
    ),
    "fee_question": (
        [
            "why did you take a fee of {n} euros {day}?",
            "what does it cost to keep the account every month?",
            "I was charged a monthly fee, I thought the account was free.",
            "how high is the fee for paying abroad?",
            "please explain the fee of {n} euros on my statement.",
            "do I pay a fee when I take out cash in {place}?",
        ],
        ["为什么{day}收了我{n}元手续费？", "账户每月要收多少管理费？", "境外消费要收手续费吗？"],
    ),
    "loan_question": (
        [
            "I would like to borrow {amount} euros for a car.",
            "what is the interest rate of a loan of {amount} euros?",
            "can I repay my loan early?",
            "how long does it take to approve a mortgage?",
            "I want to apply for a loan to renovate my kitchen.",
            "the monthly rate of my loan is too high, can we change it?",
        ],
        ["我想申请{amount}元的贷款。", "贷款利率是多少？", "房贷可以提前还款吗？"],
    ),
    "new_address": (
        [
            "I moved {day}, please change my address.",
            "my new address is {n} Garden Street.",
            "I have a new phone number, please update it.",
            "letters still go to my old flat, I live in {n} Mill Road now.",
            "how do I update my e-mail and address?",
            "we moved to another city {day}, which form do I need for the new address?",
        ],
        ["我{day}搬家了，要改地址。", "我换了手机号，请更新。", "怎样修改通信地址？"],
    ),
    "close_account": (
        [
            "I want to close my account.",
            "please cancel my savings account at the end of the month.",
            "how can I end my contract with the bank?",
            "I am leaving the country, close everything please.",
            "I do not need the second account any longer, please delete it.",
            "I am switching to another bank and would like to terminate my account.",
        ],
        ["我想销户。", "请帮我注销这个账户。", "我要换银行，怎样关闭账户？"],
    ),
}
