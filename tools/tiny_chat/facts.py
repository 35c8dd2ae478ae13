"""Tables of small facts the tiny chat model learns, Chinese and English side by side."""

# ruff: noqa: SIM905 - word lists read better as a line of text

from __future__ import annotations


def _rows(table: str) -> list[tuple[str, ...]]:
    return [tuple(cell.strip() for cell in line.split("|")) for line in table.strip().splitlines()]


# country, its capital: zh, en, zh, en
CAPITALS = _rows("""
中国|China|北京|Beijing
日本|Japan|东京|Tokyo
韩国|South Korea|首尔|Seoul
法国|France|巴黎|Paris
德国|Germany|柏林|Berlin
英国|the United Kingdom|伦敦|London
美国|the United States|华盛顿|Washington
俄罗斯|Russia|莫斯科|Moscow
意大利|Italy|罗马|Rome
西班牙|Spain|马德里|Madrid
葡萄牙|Portugal|里斯本|Lisbon
希腊|Greece|雅典|Athens
埃及|Egypt|开罗|Cairo
印度|India|新德里|New Delhi
泰国|Thailand|曼谷|Bangkok
越南|Vietnam|河内|Hanoi
加拿大|Canada|渥太华|Ottawa
澳大利亚|Australia|堪培拉|Canberra
新西兰|New Zealand|惠灵顿|Wellington
巴西|Brazil|巴西利亚|Brasilia
阿根廷|Argentina|布宜诺斯艾利斯|Buenos Aires
智利|Chile|圣地亚哥|Santiago
秘鲁|Peru|利马|Lima
墨西哥|Mexico|墨西哥城|Mexico City
古巴|Cuba|哈瓦那|Havana
瑞典|Sweden|斯德哥尔摩|Stockholm
挪威|Norway|奥斯陆|Oslo
芬兰|Finland|赫尔辛基|Helsinki
丹麦|Denmark|哥本哈根|Copenhagen
冰岛|Iceland|雷克雅未克|Reykjavik
荷兰|the Netherlands|阿姆斯特丹|Amsterdam
比利时|Belgium|布鲁塞尔|Brussels
瑞士|Switzerland|伯尔尼|Bern
奥地利|Austria|维也纳|Vienna
波兰|Poland|华沙|Warsaw
捷克|the Czech Republic|布拉格|Prague
匈牙利|Hungary|布达佩斯|Budapest
土耳其|Turkey|安卡拉|Ankara
伊朗|Iran|德黑兰|Tehran
伊拉克|Iraq|巴格达|Baghdad
肯尼亚|Kenya|内罗毕|Nairobi
蒙古|Mongolia|乌兰巴托|Ulaanbaatar
菲律宾|the Philippines|马尼拉|Manila
印度尼西亚|Indonesia|雅加达|Jakarta
马来西亚|Malaysia|吉隆坡|Kuala Lumpur
尼泊尔|Nepal|加德满都|Kathmandu
爱尔兰|Ireland|都柏林|Dublin
乌克兰|Ukraine|基辅|Kyiv
""")

# either word of a pair is the opposite of the other
OPPOSITES_ZH = _rows("""
大|小
高|低
长|短
快|慢
冷|热
黑|白
新|旧
多|少
远|近
轻|重
胖|瘦
早|晚
上|下
左|右
前|后
里|外
开|关
来|去
买|卖
哭|笑
东|西
南|北
好|坏
真|假
美|丑
强|弱
软|硬
深|浅
宽|窄
干|湿
粗|细
贵|便宜
安全|危险
简单|复杂
容易|困难
开始|结束
成功|失败
朋友|敌人
白天|黑夜
高兴|难过
勇敢|胆小
勤劳|懒惰
聪明|愚蠢
干净|肮脏
进步|退步
增加|减少
安静|吵闹
温暖|寒冷
""")

OPPOSITES_EN = _rows("""
big|small
tall|short
fast|slow
hot|cold
black|white
new|old
near|far
light|heavy
fat|thin
early|late
up|down
left|right
front|back
inside|outside
open|closed
come|go
buy|sell
cry|laugh
east|west
north|south
good|bad
true|false
beautiful|ugly
strong|weak
soft|hard
deep|shallow
wide|narrow
dry|wet
cheap|expensive
safe|dangerous
simple|complex
easy|difficult
start|end
success|failure
friend|enemy
day|night
happy|sad
brave|cowardly
clever|stupid
clean|dirty
increase|decrease
quiet|noisy
full|empty
rich|poor
win|lose
push|pull
love|hate
first|last
""")

# the same word: zh, en
WORDS = _rows("""
苹果|apple
香蕉|banana
橙子|orange
葡萄|grape
西瓜|watermelon
柠檬|lemon
桃子|peach
草莓|strawberry
面包|bread
牛奶|milk
鸡蛋|egg
米饭|rice
茶|tea
咖啡|coffee
水|water
糖|sugar
盐|salt
蛋糕|cake
猫|cat
狗|dog
鸟|bird
鱼|fish
马|horse
牛|cow
羊|sheep
猪|pig
鸭子|duck
兔子|rabbit
老虎|tiger
狮子|lion
大象|elephant
猴子|monkey
熊|bear
蛇|snake
蜜蜂|bee
蝴蝶|butterfly
树|tree
花|flower
草|grass
太阳|sun
月亮|moon
星星|star
天空|sky
雨|rain
雪|snow
风|wind
云|cloud
山|mountain
河|river
海|sea
湖|lake
森林|forest
沙漠|desert
石头|stone
火|fire
房子|house
门|door
窗户|window
桌子|table
椅子|chair
床|bed
灯|lamp
书|book
笔|pen
纸|paper
学校|school
老师|teacher
学生|student
医生|doctor
护士|nurse
警察|police
农民|farmer
厨师|cook
父亲|father
母亲|mother
兄弟|brother
姐妹|sister
孩子|child
手|hand
脚|foot
眼睛|eye
耳朵|ear
鼻子|nose
嘴|mouth
头发|hair
心|heart
汽车|car
火车|train
飞机|plane
船|ship
自行车|bicycle
路|road
桥|bridge
城市|city
国家|country
音乐|music
电影|movie
游戏|game
时间|time
钱|money
名字|name
问题|question
答案|answer
电脑|computer
手机|phone
钟|clock
钥匙|key
帽子|hat
衬衫|shirt
鞋|shoe
雨伞|umbrella
春天|spring
夏天|summer
秋天|autumn
冬天|winter
红色|red
蓝色|blue
绿色|green
黄色|yellow
吃|eat
喝|drink
跑|run
走|walk
睡觉|sleep
读|read
写|write
唱歌|sing
跳舞|dance
游泳|swim
""")

# thing: zh, en; its colour: zh, en
COLOURS = _rows("""
香蕉|a banana|黄色|yellow
草|grass|绿色|green
雪|snow|白色|white
煤炭|coal|黑色|black
血|blood|红色|red
晴朗的天空|a clear sky|蓝色|blue
胡萝卜|a carrot|橙色|orange
茄子|an eggplant|紫色|purple
番茄|a tomato|红色|red
柠檬|a lemon|黄色|yellow
牛奶|milk|白色|white
树叶|a leaf|绿色|green
南瓜|a pumpkin|橙色|orange
乌鸦|a crow|黑色|black
大海|the sea|蓝色|blue
黄瓜|a cucumber|绿色|green
向日葵|a sunflower|黄色|yellow
巧克力|chocolate|棕色|brown
盐|salt|白色|white
草莓|a strawberry|红色|red
消防车|a fire truck|红色|red
青蛙|a frog|绿色|green
樱桃|a cherry|红色|red
天鹅|a swan|白色|white
薰衣草|lavender|紫色|purple
北极熊|a polar bear|白色|white
菠菜|spinach|绿色|green
大象|an elephant|灰色|grey
老鼠|a mouse|灰色|grey
火烈鸟|a flamingo|粉色|pink
""")

# animal: zh, en; number of legs
LEGS = _rows("""
蜘蛛|a spider|8
狗|a dog|4
猫|a cat|4
鸡|a chicken|2
蚂蚁|an ant|6
蜜蜂|a bee|6
马|a horse|4
鸭子|a duck|2
蝴蝶|a butterfly|6
大象|an elephant|4
螃蟹|a crab|10
蛇|a snake|0
牛|a cow|4
鸵鸟|an ostrich|2
苍蝇|a fly|6
老虎|a tiger|4
""")

# whole, part: zh, zh, en, en; how many parts make the whole
UNITS = _rows("""
一分钟|秒|a minute|seconds|60
一小时|分钟|an hour|minutes|60
一天|小时|a day|hours|24
一周|天|a week|days|7
一年|个月|a year|months|12
一年|个季节|a year|seasons|4
一个世纪|年|a century|years|100
一公里|米|a kilometre|metres|1000
一米|厘米|a metre|centimetres|100
一千克|克|a kilogram|grams|1000
一打|个|a dozen|items|12
一个三角形|条边|a triangle|sides|3
一个正方形|条边|a square|sides|4
一个六边形|条边|a hexagon|sides|6
英语字母表|个字母|the English alphabet|letters|26
一只手|根手指|one hand|fingers|5
太阳系|颗行星|the solar system|planets|8
一支足球队|名上场球员|a football team|players on the pitch|11
一副扑克牌|张花色牌|a deck of cards|suit cards|52
彩虹|种颜色|a rainbow|colours|7
""")

# description: zh, en; what it is: zh, en
FACTS = _rows("""
太阳系里最大的行星|the largest planet in the solar system|木星|Jupiter
离太阳最近的行星|the planet closest to the sun|水星|Mercury
世界上最高的山|the highest mountain in the world|珠穆朗玛峰|Mount Everest
世界上最大的海洋|the largest ocean in the world|太平洋|the Pacific Ocean
世界上最大的沙漠|the largest hot desert in the world|撒哈拉沙漠|the Sahara
中国最长的河|the longest river in China|长江|the Yangtze
最大的动物|the largest animal|蓝鲸|the blue whale
最高的动物|the tallest animal|长颈鹿|the giraffe
跑得最快的陆地动物|the fastest land animal|猎豹|the cheetah
水的化学式|the chemical formula of water|H2O|H2O
地球的卫星|the moon of the Earth|月球|the Moon
面积最大的国家|the largest country by area|俄罗斯|Russia
万有引力的发现者|the discoverer of gravity|牛顿|Newton
相对论的提出者|the author of the theory of relativity|爱因斯坦|Einstein
《红楼梦》的作者|the author of Dream of the Red Chamber|曹雪芹|Cao Xueqin
《哈姆雷特》的作者|the author of Hamlet|莎士比亚|Shakespeare
电灯的发明者|the inventor of the light bulb|爱迪生|Edison
电话的发明者|the inventor of the telephone|贝尔|Bell
最小的质数|the smallest prime number|2|2
最硬的天然物质|the hardest natural substance|钻石|diamond
""")

# zh, en
DAYS = _rows("""
星期一|Monday
星期二|Tuesday
星期三|Wednesday
星期四|Thursday
星期五|Friday
星期六|Saturday
星期日|Sunday
""")

# put before a role: zh, en
ADJECTIVES = _rows("""
耐心的|patient
热情的|friendly
严肃的|serious
幽默的|funny
细心的|careful
专业的|professional
年轻的|young
经验丰富的|experienced
""")

# what no assistant can know: zh, en
UNKNOWN = _rows("""
明天的彩票号码|tomorrow's lottery numbers
我昨天晚饭吃了什么|what I ate for dinner yesterday
我现在在想什么|what I am thinking right now
我的银行密码|my bank password
我邻居的电话号码|my neighbour's phone number
明年的股票价格|next year's stock prices
我口袋里有多少钱|how much money is in my pocket
我家的地址|my home address
外面现在的天气|the weather outside right now
我养的猫叫什么|what my cat is called
我什么时候会发财|when I will become rich
现在几点了|what time it is now
今天的新闻|today's news
我老板的生日|my boss's birthday
我昨晚做了什么梦|what I dreamed last night
下一场比赛的比分|the score of the next match
我手里拿着什么|what I am holding in my hand
我身高多少|how tall I am
今天的汇率|today's exchange rate
我的快递到哪里了|where my parcel is
我的钥匙放在哪里|where I put my keys
你窗外有什么|what is outside your window
我下个月的工资|my salary next month
我的血型|my blood type
外星人的长相|what aliens look like
世界末日的日期|the date of the end of the world
我妈妈的名字|my mother's name
我的考试成绩|my exam results
我隔壁坐着谁|who is sitting next to me
宝藏埋在哪里|where the treasure is buried
""")

MONTHS_EN = (
    "January February March April May June July August September October November December"
).split()
NUMERALS_ZH = "零一二三四五六七八九十"
