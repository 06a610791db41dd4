"""Wordings of notices of translation servers in languages other than English, as regular expressions, one a line.

Each says that a quota or limit is used up, that there were too many requests, that a service, access or translation is not available, that
a key is wrong, or that the reader should consent or try again.
"""

from __future__ import annotations

OTHER_LANGUAGES = r"""
kontingent (?:ist |wurde )?(?:überschritten|erschöpft|aufgebraucht)
\bzu viele anfragen\b
versuchen sie es (?:später|in \d)
\bspäter (?:erneut|noch einmal|nochmals?)\b
vorübergehend nicht (?:verfügbar|erreichbar)
\bzugriff verweigert\b
\bungültiger? (?:api|schlüssel|anfrage|sprache)
\bbevor sie (?:zu google )?(?:weitergehen|fortfahren)
keine übersetzung (?:verfügbar|gefunden)
übersetzung (?:ist )?nicht verfügbar
(?:limit|grenze) (?:ist |wurde )?(?:erreicht|überschritten)
\btrop de requêtes\b
\bréessayer? (?:plus tard|dans)\b
temporairement indisponible
\baccès refusé\b
\bclé api\b
\bavant de continuer\b
\b(?:limite|quota)[\w' ]{0,25} (?:atteinte?|dépassée?|épuisée?)\b
\bdemasiadas solicitudes\b
\b(?:inténte|vuelva a intentar)lo (?:de nuevo )?más tarde\b
\bno disponible temporalmente\b
\btemporalmente no disponible\b
\bacceso denegado\b
\bclave (?:de )?api\b
\bantes de continuar\b
\b(?:superado|excedido|alcanzado) (?:su|el|la|tu) (?:cuota|límite)
\b(?:cuota|límite)[\w ]{0,20} (?:superad|excedid|alcanzad|agotad)[oa]\b
\bmuitas (?:solicitações|requisições)\b
\btente novamente\b
\btemporariamente indisponível\b
\bacesso negado\b
\b(?:limite|cota)[\w ]{0,20} (?:excedid|atingid|esgotad)[oa]\b
\btroppe richieste\b
\briprova più tardi\b
\btemporaneamente non disponibile\b
\baccesso negato\b
\bprima di continuare\b
\b(?:superato|raggiunto) il (?:limite|quota)\b
\blimite[\w ]{0,20} (?:superato|raggiunto)\b
\bte veel (?:verzoeken|aanvragen)\b
\bprobeer het later\b
\btoegang geweigerd\b
\btijdelijk niet beschikbaar\b
\bza dużo (?:żądań|zapytań)\b
\bspróbuj ponownie\b
\bprzekroczono (?:limit|dzienny)
\bodmowa dostępu\b
\btymczasowo niedostępn
\bpříliš mnoho (?:požadavků|dotazů)\b
\bzkuste to (?:znovu|později)
\bpřístup odepřen\b
\bför många förfrågningar\b
\bförsök igen\b
\bfor mange forespørsler\b
\bprøv igen\b
\bçok fazla istek\b
\btekrar deneyin\b
\berişim engellendi\b
слишком много запросов
(?:попробуйте|повторите) (?:попытку )?(?:ещё раз |еще раз )?позже
превышен\w* (?:\w+ )?(?:лимит|квот|количеств)
лимит[\w ]{0,20} (?:превышен|исчерпан)
временно недоступ
(?:доступ|в доступе) (?:запрещ|отказ)
забагато запитів
спробуйте пізніше
请求(?:过于频繁|过多|太多|次数)
请稍[后候]再?[试試]
(?:频率|次数|额度)[^，。]{0,6}(?:受限|上限|限制|不足|超出)
余额不足
服务[^，。]{0,4}不可用
拒绝访问|访问被拒绝|禁止访问
請求(?:過於頻繁|過多|次數)
請稍後再試
已[达達]到?上限
リクエストが多すぎ
(?:もう一度|再度|後で)お試し
(?:上限|制限)に達し
(?:一時的に|現在)[^。]{0,6}(?:利用|ご利用)(?:でき|いただけ)ません
アクセスが拒否
요청이 너무 많
(?:잠시 후|나중에) 다시 시도
한도를? ?초과
사용할 수 없습니다
액세스가? ?거부
طلبات كثيرة
حاول مرة أخرى
تم تجاوز (?:الحد|الحصة)
تم رفض الوصول
غير متاح(?:ة)? مؤقت
درخواست‌?های? (?:بیش|زیاد)
quá nhiều (?:yêu cầu|lượt)
thử lại (?:sau|lần nữa)
vượt quá (?:giới hạn|hạn mức)
terlalu banyak permintaan
\bcoba lagi nanti\b
\bakses ditolak\b
คำขอมากเกินไป
ลองอีกครั้ง(?:ใน)?ภายหลัง
เกินขีดจำกัด
बहुत अधिक अनुरोध
""".strip().splitlines()
